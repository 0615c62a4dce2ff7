# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes out of a measurement: numbers, ratios, limits, the table."""

import statistics

from .backends import BACKENDS, BARE, SUBJECT

REAL = tuple(name for name in BACKENDS if name != BARE)
ITSELF = 'limit'        # a limit for the subject's own value, not a ratio


class Figure:
    """One number of a job: a row of the table."""

    def __init__(self, key, line, unit, digits, more_is_better):
        self.key = key
        self.line = line
        self.unit = unit
        self.digits = digits
        self.more_is_better = more_is_better


class Job:
    """One kind of work, and the figures that come out of it.

    measure() does it once with one backend and returns a value for each
    figure.  check() does it with content that is compared, where that can be.
    limits() says what is to be reached: {whose: least or largest ratio}.
    """

    def __init__(self, name, figures, backends=REAL, rounds=None):
        self.name = name
        self.figures = figures
        self.backends = backends
        self.rounds = rounds            # at most

    def check(self, setup, backend):
        pass

    def measure(self, setup, backend):
        raise NotImplementedError

    def finish(self):
        """What was kept for all rounds can go."""

    def limits(self, targets, figure):
        return {}


class Row:
    """One figure of one job, for all backends."""

    def __init__(self, job, figure, rounds, labels, targets):
        self.name = job.name
        self.line = figure.line
        self.figure = figure
        self.values = {label: [r[label][figure.key] for r in rounds]
                       for label in labels if label in rounds[0]}
        self.subject = SUBJECT if SUBJECT in self.values \
            else list(self.values)[-1]
        limits = job.limits(targets, figure) \
            if self.subject == SUBJECT else {}
        self.verdicts = [self.ratio(label, limits.get(label))
                         for label in self.values if label != self.subject]
        if ITSELF in limits:
            self.verdicts.append(self.judge(ITSELF, self.values[SUBJECT],
                                            limits[ITSELF]))

    def ratio(self, label, limit):
        pairs = [a / b for a, b in zip(self.values[self.subject],
                                       self.values[label])]
        return self.judge(label, pairs, limit)

    def judge(self, label, values, limit):
        median = statistics.median(values)
        met = None
        if limit is not None:
            met = median >= limit if self.figure.more_is_better \
                else median <= limit
        return {'of': label, 'median': median, 'least': min(values),
                'most': max(values), 'limit': limit, 'met': met}

    def verdict(self, ratio):
        if ratio['met'] is None:
            return ''
        sign = '>=' if self.figure.more_is_better else '<='
        return f"{sign} {ratio['limit']:.2f} " + \
            ('met' if ratio['met'] else 'NOT MET')

    def describe(self, ratio):
        spread = f"({ratio['least']:.2f}..{ratio['most']:.2f})"
        what = '' if ratio['of'] == ITSELF \
            else f"{ratio['median']:5.2f} of {ratio['of']:<9}"
        return f'{what:<18}{spread:<15}{self.verdict(ratio)}'.rstrip()

    def print(self, labels):
        digits = self.figure.digits
        medians = ''.join(
            f'{statistics.median(self.values[label]):>11.{digits}f}'
            if label in self.values else f"{'-':>11}" for label in labels)
        head = f'{self.name:<41} {self.figure.unit:<10}{medians}'
        if not self.verdicts:
            print(head)
        for ratio in self.verdicts:
            print(f'{head}  {self.describe(ratio)}')
            head = ' ' * len(head)


def print_table(rows, labels, titles):
    print(f"{'':<52}" + ''.join(f'{label:>11}' for label in labels))
    line = None
    for row in sorted(rows, key=lambda r: r.line):
        if row.line != line:
            line = row.line
            print(f'-- line {line}: {titles[line]}')
        row.print(labels)
