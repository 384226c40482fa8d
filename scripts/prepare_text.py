"""Takes calibration and evaluation text from the HTML pages of a book.

Usage: prepare_text.py PAGES FOLDER

Keeps paragraphs of running prose. Every fourth page goes to FOLDER/evaluation.txt, the
others to FOLDER/calibration.txt; no paragraph is in both.
"""

import html.parser
import pathlib
import sys

PARAGRAPH = ("p", "div")
NOT_PROSE = ("pre", "table", "script", "style")
SHORTEST = 150  # characters; captions, menus and list items are shorter


class Paragraphs(html.parser.HTMLParser):
    """Collects the text of <p> and <div class="para">."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.open = None
        self.skipped = 0

    def handle_starttag(self, tag, attributes):
        if tag in NOT_PROSE:
            self.skipped += 1
        elif tag == "p" or (tag == "div" and dict(attributes).get("class") == "para"):
            self.finish()
            self.open = []

    def handle_endtag(self, tag):
        if tag in NOT_PROSE:
            self.skipped = max(0, self.skipped - 1)
        elif tag in PARAGRAPH:
            self.finish()

    def handle_data(self, data):
        if self.open is not None and not self.skipped:
            self.open.append(data)

    def finish(self):
        text = " ".join("".join(self.open or []).split())
        if len(text) >= SHORTEST:
            self.found.append(text)
        self.open = None


def paragraphs(page):
    parser = Paragraphs()
    parser.feed(page.read_text(encoding="utf-8"))
    parser.close()
    parser.finish()
    return parser.found


def main(pages, folder):
    seen = set()
    parts = {"calibration": [], "evaluation": []}
    for index, page in enumerate(sorted(pages.glob("*.html"))):
        part = parts["evaluation" if index % 4 == 3 else "calibration"]
        for text in paragraphs(page):
            if text not in seen:
                seen.add(text)
                part.append(text)
    for name, texts in parts.items():
        if not texts:
            sys.exit(f"prepare_text.py: {pages} has no {name} text")
        (folder / f"{name}.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
        print(f"wrote {len(texts)} paragraphs of {name} text to {folder}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
