# Take the lists of numbers that are values of the key `name` (as it is spelled in the text) out of a JSON text: the text with
# empty lists in their place, all numbers as float64, how many lists there were, and the length of each, -1 if they differ.
# None: one of them holds something else, or a number that a float64 cannot hold exactly because it is whole and large. The text
# need not be JSON elsewhere: whoever reads what is left must judge that.
def lift(text: bytes, name: bytes) -> tuple[bytes, bytes, int, int] | None: ...
