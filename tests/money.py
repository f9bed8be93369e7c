"""A type of Arrow that a stranger has made."""

import pyarrow as pa


class Money(pa.ExtensionType):
    """A stranger's type, for which there is no hash."""

    def __init__(self, stored):
        super().__init__(stored, "test.money")

    def __arrow_ext_serialize__(self):
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized):
        return cls(storage_type)
