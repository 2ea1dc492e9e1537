"""Numbers in sentences."""


def number_of(n: int, one: str, many: str | None = None) -> str:
    """Return `1 GPU` and `2 GPUs`; `many` is the plural where it is not `one` with an s."""
    return f"{n} {one if n == 1 else many or f'{one}s'}"


def duration(seconds: float) -> str:
    """Return a time in words, rounded so that it promises no more than an estimate can."""
    if seconds < 90:
        return number_of(round(seconds), "second")
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 90 else f"{seconds / 3600:.1f} hours"
