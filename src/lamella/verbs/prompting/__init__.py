"""Parts of `lamella segment`."""
