"""Medical questions from a library, with citations or not at all, and notes turned into records. Not a medical device."""
