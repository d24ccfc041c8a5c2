"""What `lamella adapt` trains: one file a method."""
