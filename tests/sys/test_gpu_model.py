"""test_gpu_model.py: the image serves from the simulated card in QEMU: the real `openai` client
gets an answer whose products the card computed, as the card's own ledger says; a card that does not
start leaves the work to the CPU, unless nohost.conf wants a card; two cards share the requests.

Guards the way from the boot partition to a token on a card: upload, steps, interrupts, fallback.
"""
import json
import os
import threading
import time

import openai

from machine import KEY, MODEL, Machine, closing_line, image, run_cases
from test_gpu import CONF, FILES
from test_radeon import Cards

HELLO = [{"role": "user", "content": "What is the capital of France?"}]
FIRST_TOKEN_S, TOKENS_S = 60, 0.5  # only so that a hang shows; docs/BENCH.md has what is measured
LAYERS, WEIGHTS = 30, 134_515_008  # of SmolLM2-135M


def stream(machine, tokens):
    """(text, seconds to the first token, tokens a second)"""
    client = openai.OpenAI(base_url=machine.url + "/v1", api_key=KEY, max_retries=0, timeout=300)
    start = time.monotonic()
    answer = client.chat.completions.create(model="any", messages=HELLO, temperature=0,
                                            max_tokens=tokens, stream=True)
    pieces = [(p.choices[0].delta.content, time.monotonic()) for p in answer
              if p.choices and p.choices[0].delta.content]
    rate = (len(pieces) - 1) / max(pieces[-1][1] - pieces[0][1], 1e-9)
    return "".join(text for text, _ in pieces), pieces[0][1] - start, rate


def boot(name, conf, firmware, looks, *options, count=1):
    cards = Cards(count, *options)
    path = image(name, MODEL, CONF + conf, firmware=firmware)
    try:
        with Machine(path, **cards.variables()) as machine:
            looks(machine)
    finally:
        status, said = cards.end()
    assert status == 0, f"the card found fault, {status}:\n{said}"


def the_card_answers():
    ledger = "build/sys/gpu-model.ledger"

    def looks(machine):
        ready = machine.wait_health(200)
        text, first, rate = stream(machine, 16)
        print(f"    ready after {ready:.1f} s, first token {first:.1f} s, {rate:.1f} tokens a "
              f"second: {text!r}")
        assert "Paris" in text, text
        assert first < FIRST_TOKEN_S and rate > TOKENS_S, (first, rate)
        looks.steps = machine.metric("nohost_generated_tokens_total")
    boot("gpu-model", "device = gpu\n", FILES, looks, "--fast", "--ledger", ledger)
    card = json.load(open(ledger))
    assert card["dispatches"] >= LAYERS * looks.steps, (card["dispatches"], looks.steps)
    # Each weight is multiplied in each step: at most 8 by a lane's instruction, 16^3 by a matrix's.
    products = card["total"]["dot"] * 32 * 8 + card["total"]["wmma"] * 16 ** 3
    assert products >= WEIGHTS * looks.steps, card["total"]


def a_card_that_does_not_start():
    def falls_back(machine):
        machine.wait_health(200)
        assert "the CPU computes: the graphics card is dead" in machine.console()
        assert "Paris" in stream(machine, 8)[0]

    def insists(machine):
        machine.wait_health(503)
        machine.wait("failed", lambda: '"failed"' in machine.ask("/health")[2], 60)
        assert "the graphics card is dead: firmware files" in machine.ask("/health")[2]
    boot("gpu-model-auto", "", FILES[:-1], falls_back)
    boot("gpu-model-gpu", "device = gpu\n", FILES[:-1], insists)


def two_cards(conf, words):
    def looks(machine):
        machine.wait_health(200)
        assert words in machine.console(), machine.console()
        texts = []
        threads = [threading.Thread(target=lambda: texts.append(stream(machine, 8)[0]))
                   for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(texts) == 2 and all("Paris" in text for text in texts), texts
    ledger = "build/sys/gpu-model.ledger"
    boot("gpu-model-two", conf, FILES, looks, "--fast", "--ledger", ledger, count=2)
    cards = [json.loads(line) for line in open(ledger) if line.strip()]
    assert len(cards) == 2 and all(card["total"]["dot"] > WEIGHTS / 64 for card in cards), cards


def two_cards_share_the_requests():
    two_cards("", "is ready: 8 slots")


def two_cards_share_the_layers():
    two_cards("cards = layers\n", "the layers are split over 2 cards")


if __name__ == "__main__":
    os.makedirs("build/sys", exist_ok=True)
    raise SystemExit(closing_line([run_cases([
        the_card_answers, a_card_that_does_not_start, two_cards_share_the_requests,
        two_cards_share_the_layers])]))
