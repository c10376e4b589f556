"""Files, system calls and filters of Linux; nothing here knows Hearth."""
