"""What is done with words once they are known: subtitles and other renderings."""
