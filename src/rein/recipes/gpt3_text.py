"""GPT-3's corpus from your own text: a filtered crawl and four curated sources, mixed as Table 2.2 says.

    cp "$(python -c 'import rein.recipes.gpt3_text as r; print(r.__file__)')" gpt3_text.py
    rein text build gpt3_text.py
    rein text mixture data/gpt3_text --train-tokens 300e9

Common Crawl passes a classifier that tells curated text from crawled (alpha 9); near-duplicates go within each source,
and from Common Crawl also those of the others; 13-grams of the evaluation sets are cut out. The weights are as printed
and add up to 101%. The paper's near-duplicates are `NearDuplicates("gpt3")`: sets of words, 10 hashes. That compares
nearly every document with every other and does not scale; the default here finds the same copies.
Source: Brown 2020 §2.2, Appendices A and C.
"""

from pathlib import Path

from rein.text.recipe import Decontamination, NearDuplicates, Quality, Recipe, Source

recipe = Recipe(
    sources=(
        Source("common-crawl", "warc", (Path("common-crawl"),), languages=("en",), quality=True, weight=0.60),
        Source("webtext2", "jsonl", (Path("webtext2"),), weight=0.22),
        Source("books1", "folder", (Path("books1"),), weight=0.08),
        Source("books2", "folder", (Path("books2"),), weight=0.08),
        Source("wikipedia", "jsonl", (Path("wikipedia"),), weight=0.03),
    ),
    quality=Quality(positive=("webtext2", "books1", "wikipedia"), negative=("common-crawl",), alpha=9),
    near_duplicates=NearDuplicates(prefer=("webtext2", "wikipedia", "books1", "books2", "common-crawl")),
    decontamination=Decontamination(
        against=(Path("evaluation"),), n=13, window_chars=200, min_piece_chars=200, max_pieces=10, max_documents=10
    ),
    n_vocab=50257,
)
"""What `rein text build` makes."""
