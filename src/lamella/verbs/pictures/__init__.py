"""What `lamella explain` and `lamella preview` draw of items, runs and samples."""
