"""What agents keep: conversations and files."""
