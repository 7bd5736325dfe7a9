"""The page at `/`: plain HTML, CSS and ES modules of ours, served as they lie here."""

from mediasvc.web.pages.pages import add_pages

__all__ = ["add_pages"]
