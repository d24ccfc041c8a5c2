"""What `lamella evaluate` is made of: who is judged, by which questions, beside which rivals."""
