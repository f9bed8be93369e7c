"""What all tests share."""

from hypothesis import settings

# Nothing is timed in tests: the first example pays for imports, and the machine may be busy.
settings.register_profile("mlinfer", deadline=None)
settings.load_profile("mlinfer")
