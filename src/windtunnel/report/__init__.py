"""What people look at: tables for the terminal, figures, and pages that need nothing but a browser."""
