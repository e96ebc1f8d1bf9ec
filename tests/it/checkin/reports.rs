//! What is sent, when, and in which order.
