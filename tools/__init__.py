"""Scripts for this repository: translations, pictures, printed pages, and comparison of results."""
