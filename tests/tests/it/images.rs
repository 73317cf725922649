//! What `init` writes for a project, built and used.

use crate::samples::{NODE, PYTHON, a_project_of};

#[test]
fn a_python_project_from_init_to_its_tests() {
    a_project_of(&PYTHON, |_| false);
}

#[test]
fn a_node_project_from_init_to_its_tests() {
    a_project_of(&NODE, |_| false);
}
