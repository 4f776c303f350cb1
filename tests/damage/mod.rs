//! Location times change: the right error, the right object named.
