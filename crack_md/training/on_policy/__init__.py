"""On-policy rounds: the student explores, the teacher labels what it gets wrong.

A student meets structures that its own errors lead to, which no dataset made without it
holds. Each round trains it, lets it relax structures and run hot molecular dynamics,
labels the frames that it is least sure of, and trains it again on all of them (S. Ross,
G. Gordon, D. Bagnell, "A reduction of imitation learning and structured prediction to
no-regret online learning", AISTATS 2011).
"""
