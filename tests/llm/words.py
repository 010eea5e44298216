"""What tests look for in texts."""

import re


def holds_words(text: str, words: str) -> bool:
    """Whether a text holds a name as whole words, in capitals or not."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None
