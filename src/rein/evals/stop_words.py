"""Words that LAMBADA's filtered scoring does not take as a last word of a passage.

The last word of a LAMBADA passage is hardly ever one of them, and a model that does not know so loses points by
them. Radford 2019 §3.3 names a stop-word filter and prints no list; these are the English function words that common
lists agree on.
"""

_WORDS = """
a about above after again against all am an and any are as at be because been before being below between both but
by can could did do does doing down during each few for from further had has have having he her here hers herself
him himself his how i if in into is it its itself just me more most my myself no nor not now of off on once only or
other our ours ourselves out over own same she should so some such than that the their theirs them themselves then
there these they this those through to too under until up very was we were what when where which while who whom why
will with would you your yours yourself yourselves
"""

STOP_WORDS = frozenset(_WORDS.split())
