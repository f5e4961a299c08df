"""A page as a browser sees it."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [
            v or "" for k, v in attributes if k in ("src", "href", "onerror", "onload")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data
