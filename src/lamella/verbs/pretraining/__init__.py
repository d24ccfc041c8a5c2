"""What `lamella pretrain` is made of: a course for each kind of data, and the monitors of all."""
