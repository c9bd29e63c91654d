"""Network policies explained: who may connect, by which rule, and which policies are mistaken."""
