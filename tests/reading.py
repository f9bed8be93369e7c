"""What the tests of several sources share: files to read, and everything that a reader gives."""

from mlinfer import EndOfInput


def batches(source, after=None, *, wanted, size=1000):
    """All that the reader of the only partition gives, a batch at a time."""
    (partition,) = source.partitions()
    with source.open(partition, after, wanted) as reader:
        while True:
            try:
                yield reader.read(size, 0)
            except EndOfInput:
                return


def ids(found):
    """What the records of batches are called."""
    return [one for batch in found for one in batch.ids.array().to_pylist()]


def written(folder, content, name):
    """A file with this content."""
    path = folder / name
    path.write_bytes(content)
    return path
