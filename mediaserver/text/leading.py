"""Words that lead what follows them: a line that ends in one makes a reader wait for its sense."""

from __future__ import annotations

from collections.abc import Mapping

_LEADING: Mapping[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "en": "a an the my your his her its our their this that these those of to in on at by for with from into "
        "about and or but nor if because when while as than who which whose i you he she it we they is are was were "
        "be not no",
        "de": "der die das den dem des ein eine einen einem einer eines mein dein sein ihr unser euer kein keine in "
        "an auf aus bei mit nach von vor zu zum zur im am für über unter und oder aber wenn weil dass als wie ich du "
        "er sie es wir nicht",
        "fr": "le la les un une des du de au aux mon ma mes ton ta tes son sa ses notre votre leur ce cet cette ces à "
        "en dans par pour sur avec sans et ou mais si que qui je tu il elle nous vous ils elles ne",
        "es": "el la los las un una unos unas mi tu su nuestro este esta ese esa de del a al en con por para sin "
        "sobre y e o u pero si que quien yo tú él ella no",
        "it": "il lo la i gli le un uno una mio tuo suo nostro questo questa di del della a al alla in nel nella con "
        "per su sul tra fra e o ma se che chi io tu non",
        "pt": "o a os as um uma uns umas meu teu seu nosso este esta de do da dos das em no na nos nas por para com "
        "sem e ou mas se que quem eu tu não",
        "nl": "de het een mijn jouw zijn haar ons onze deze dit die dat van in op aan bij met naar voor uit en of "
        "maar als dat wie ik je hij zij wij niet",
    }.items()
}
"""Articles, pronouns before what they own or what they do, prepositions and conjunctions."""


def leading_words(language: str | None) -> frozenset[str]:
    """Those of a language by its code, in small letters; none where they are not known."""
    return _LEADING.get(language or "", frozenset())
