"""A machine without an engine, on which the locked one is installed from the package index and then serves."""

from harness import client


def test_a_bare_machine_installs_the_locked_engine(projects, tmp_path):
    project = projects("none")
    project.up(timeout=1500)
    outputs = project.outputs()
    assert outputs["evidence"]["vllm"] == "0.32.0"
    ai = client(outputs, tmp_path)
    answer = ai.chat.completions.create(
        model=outputs["model"],
        messages=[{"role": "user", "content": "How are you?"}],
        temperature=0,
        max_tokens=48,
    )
    assert answer.choices[0].message.content.strip() == "The quick brown fox jumps over a lazy dog."
    assert set(project.changes()) == {"same"}
