//! What a user gets wrong: each answered with one line that tells what to do, and nothing is changed.
