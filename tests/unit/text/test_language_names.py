"""Names of languages."""

from faster_whisper.tokenizer import _LANGUAGE_CODES

from mediaserver.text.languages import NAMES, UNSPACED, code_of


def test_all_languages_of_whisper_have_a_name() -> None:
    assert set(NAMES) == set(_LANGUAGE_CODES)
    assert len(set(NAMES.values())) == len(NAMES)
    assert set(NAMES) >= UNSPACED


def test_a_language_is_given_by_code_or_name() -> None:
    assert code_of("de") == code_of("German") == code_of(" GERMAN ") == "de"
    assert code_of("haitian creole") == "ht"
    assert code_of("Klingon") == "klingon"
