//! The scheduler alone, on a simulated clock: its rules one by one, and what holds whatever comes.

mod chaos;
mod compare;
mod fairness;
mod forecasts;
mod queues;
mod rules;
mod sim;
