"""Results for people: text for a terminal, and pages of one HTML file each."""
