"""GPT-2's corpus from your own crawl: pages that people linked to, without Wikipedia.

    cp "$(python -c 'import rein.recipes.webtext as r; print(r.__file__)')" webtext.py
    rein text build webtext.py

links/ has dumps of outbound links with their votes (url, score, date), crawl/ the pages as WARC. Links with at least
3 karma until December 2017, no Wikipedia, two extractors combined, duplicates out. What the paper calls heuristic
cleaning was never published; the language and length limits and the threshold of near-duplicates are OpenWebText's,
which also reports 8,013,769 documents where the paper has "slightly over 8 million".
Source: Radford 2019 §2.1 and §2.2.
"""

from pathlib import Path

from rein.text.recipe import NearDuplicates, Recipe, Source

recipe = Recipe(
    sources=(
        Source(
            "webtext",
            "warc",
            (Path("crawl"),),
            links=(Path("links/*"),),
            min_score=3,
            until="2017-12-31",
            extract="union",
            languages=("en",),
            min_chars=512,  # 128 tokens at the 4 characters of one
        ),
    ),
    near_duplicates=NearDuplicates("shingles", threshold=0.5),
    n_vocab=50257,
    heldout_frac=0.0005,
)
"""What `rein text build` makes."""
