"""Encodes and decodes texts with transformers, for tokenizer_parity_test.

Usage: reference.py REQUEST ANSWER

REQUEST holds `tokenizers` (paths of tokenizer.json by name) and `texts`. ANSWER gets for
each name `vocab_size` and, in `texts`, the ids of each text without and with special
tokens and what the latter decode to, with and without special tokens.
"""

import json
import sys

from transformers import PreTrainedTokenizerFast


def answer(path, texts):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=path, clean_up_tokenization_spaces=False)
    answers = []
    for text in texts:
        special = tokenizer.encode(text, add_special_tokens=True)
        answers.append({
            "plain": tokenizer.encode(text, add_special_tokens=False),
            "special": special,
            "decoded": tokenizer.decode(special, skip_special_tokens=False),
            "decoded_plain": tokenizer.decode(special, skip_special_tokens=True),
        })
    return {"vocab_size": max(tokenizer.get_vocab().values()) + 1, "texts": answers}


def main(request_path, answer_path):
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    answers = {name: answer(path, request["texts"]) for name, path in request["tokenizers"].items()}
    with open(answer_path, "w", encoding="utf-8") as file:
        json.dump(answers, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
