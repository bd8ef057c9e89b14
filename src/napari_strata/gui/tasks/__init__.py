"""Long work beside the window: jobs, and what they carry out."""
