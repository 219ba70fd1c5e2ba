"""The tiny models of other architectures: the same bytes each time, and one known answer."""

import json

import numpy as np
import pytest
from pulumi_vllm_local.hub import published_models
from pulumi_vllm_local.hub.tree import commit_of, read_tree
from pulumi_vllm_local.tiny_model import chain_models

MODELS = pytest.mark.parametrize("model", chain_models.MODELS, ids=lambda model: model.repository)


@MODELS
def test_the_files_are_the_same_each_time(model, tmp_path):
    commits = [commit_of(read_tree(chain_models.ensure(model, tmp_path / name))) for name in ("one", "two")]
    assert commits[0] == commits[1]
    assert chain_models.ensure(model, tmp_path / "one") == tmp_path / "one"


@MODELS
def test_each_token_has_the_next_word_of_the_answer_as_its_successor(model):
    tensors = chain_models._tensors(model)
    words, table = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
    token, answer = model.start, []
    while token != chain_models.END:
        scores = table @ words[token]
        token = int(np.argmax(scores))
        assert np.sort(scores)[-2] < scores[token] / 2, "noise of the layers must not change the answer"
        answer.append(token)
    assert tuple(answer) == (*model.chain, chain_models.END)


@MODELS
def test_the_tokenizer_has_a_word_for_each_token_of_the_answer(model, tmp_path):
    chain_models.write(model, tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    added = {one["id"]: one["content"] for one in tokenizer["added_tokens"]}
    assert [added[token] for token in model.chain] == list(model.answer)
    assert len(tokenizer["model"]["vocab"]) == 256
    assert not set(added.values()) & set(tokenizer["model"]["vocab"])
    assert model.template.endswith(added[model.start])
    assert set(published_models.tensors(model.config)) == set(chain_models._tensors(model))
