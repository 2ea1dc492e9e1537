"""Numbers in sentences."""


def counted(n: int, noun: str) -> str:
    """Return a number and its noun, whose plural ends in s: "1 picture", "2 pictures", "3 classes" of "class"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}{'es' if noun.endswith('s') else 's'}"


def duration(seconds: float) -> str:
    """Return a time in words, rounded so that it promises no more than an estimate can."""
    if seconds < 90:
        return counted(round(seconds), "second")
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 90 else f"{seconds / 3600:.1f} hours"
