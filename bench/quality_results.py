"""Measured perplexities of bench/quality.py: what each depends on, kept as JSON lines."""

import dataclasses
import json
import math

BASELINE = "CARE uniform (sqrt C) = SVD-LLM"
ORIGINAL = "original"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One conversion, or the original, measured on one text."""

    model: str
    windows: int
    evaluation: str
    method: str = ORIGINAL
    budget: str = "1"
    calibration: str = ""
    tokens: str = ""  # sequences x length of the calibration
    seed: int = 0


class Results:
    """Perplexities by cell; each new one is appended to the file at once."""

    def __init__(self, path=None):
        self.path = path
        self.perplexity = {}
        self.predicted = {}  # predicted loss, nats a token, where the method has one
        if path and path.exists():
            for line in path.read_text().splitlines():
                fields = json.loads(line)
                perplexity, predicted = fields.pop("perplexity"), fields.pop("predicted", None)
                cell = Cell(**fields)
                self.perplexity[cell] = perplexity
                if predicted is not None:
                    self.predicted[cell] = predicted

    def __contains__(self, cell):
        return cell in self.perplexity

    def add(self, cell, perplexity, predicted=None):
        self.perplexity[cell] = perplexity
        fields = dataclasses.asdict(cell) | {"perplexity": perplexity}
        if predicted is not None:
            self.predicted[cell] = predicted
            fields["predicted"] = predicted
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(fields) + "\n")

    def original(self, cell):
        return self.perplexity.get(Cell(cell.model, cell.windows, cell.evaluation))

    def loss(self, cell):
        """Log of the perplexity by the original's, nats a token; None where one is not measured."""
        original = self.original(cell)
        if original is None or cell not in self.perplexity:
            return None
        return math.log(self.perplexity[cell] / original)

    def recovered(self, cell):
        """Share of the baseline's loss at the same bytes that the method does not have."""
        loss, baseline = self.loss(cell), self.loss(dataclasses.replace(cell, method=BASELINE))
        return None if loss is None or not baseline else 1 - loss / baseline
