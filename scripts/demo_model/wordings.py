"""Questions written apart from the generator, for evaluation only; training rejects them."""

from __future__ import annotations

import re

from .blind_wordings import BLIND_WORDINGS_OF_COMMANDS
from .tasks import phrases

WORDINGS_OF_COMMANDS = [  # no wish list was consulted, but misses here were seen when the last wishes were added
    ("Where do I get Qwen3 8B from?", "pull"),
    ("My disk is full. How do I throw away a model?", "rm"),
    ("I only have 8 GB of memory. How do I make the model smaller?", "quantize"),
    ("which command shows how fast my laptop is?", "bench"),
    ("how can vs code use my local model?", "serve"),
    ("I have a json file with examples and want to train on it", "train"),
    ("How do I turn a Hugging Face checkpoint into MLX?", "convert"),
    ("What models do I have here?", "list"),
    ("How many layers does this model have? which command", "show"),
    ("Is my download corrupted?", "verify"),
    ("I have a gguf file on disk, how can I use it?", "import"),
    ("How do I use my model with llama.cpp?", "export"),
    ("Something is broken, how do I find out what?", "doctor"),
    ("How do I check my training data for mistakes?", "data inspect"),
    ("How do I measure perplexity?", "eval"),
    ("How do I talk to Qwen?", "chat"),
    ("How do I open the app?", ""),
    ("download command?", "pull"),
    ("quantize to 4 bit", "quantize"),
    ("start a server", "serve"),
    ("delete model", "rm"),
    ("fine-tuning", "train"),
    ("speed test", "bench"),
    ("evaluate my model", "eval"),
    ("list models", "list"),
    ("Which command downloads models?", "pull"),
    ("Which command deletes models?", "rm"),
    ("Which command quantizes a model?", "quantize"),
    ("What starts the API server?", "serve"),
    ("What do I need to run for LoRA?", "train"),
    ("How would I go about fine tuning a model on my own data?", "train"),
    ("Tell me which command converts weights.", "convert"),
    ("How do I start chatting with a model?", "chat"),
    ("Can I make it 4-bit?", "quantize"),
    ("I'd like to see how good the quantized model is", "eval"),
    ("Show me all the models I downloaded", "list"),
    ("What is the command for benchmarks?", "bench"),
    ("Which command tells me if my GPU works?", "doctor"),
    ("How do I look at my dataset?", "data inspect"),
    ("How can I share my fine-tuned model as GGUF?", "export"),
    ("How can I bring in a model from Ollama?", "import"),
    ("please download qwen3:4b", "pull"),
    ("I want to remove qwen3:0.6b from my computer", "rm"),
    ("how do I run the app", ""),
    ("Which command checks the hashes of the files?", "verify"),
    ("Which command prints the config of a model?", "show"),
    ("how to run an openai compatible server", "serve"),
    ("How do I get more models?", "pull"),
    ("I want more tokens per second numbers", "bench"),
    ("how do i train a lora", "train"),
    ("下载模型用哪个命令", "pull"),
    ("怎么微调一个模型？", "train"),
    ("我想把模型量化到4位", "quantize"),
    ("怎样启动API服务？", "serve"),
    ("删除模型的命令", "rm"),
    ("我电脑上有哪些模型？", "list"),
    ("怎么测试速度？", "bench"),
    ("如何转换模型格式", "convert"),
    ("怎么检查我的环境？", "doctor"),
    ("导入GGUF要怎么做", "import"),
    ("怎么打开这个应用？", ""),
    ("如何评估量化后的模型", "eval"),
]
WORDINGS_OF_A_SUM = phrases(
    """
    What is {a} + {b}? | {a}+{b} | what's {a} + {b}? | Add {a} and {b} | {a}加{b}等于多少？ |
    Hey, what is {a} + {b}? | please calculate {a} + {b} | Can you tell me what {a} plus {b} is? | {a} + {b} is? |
    How much do {a} and {b} make? | sum: {a} + {b} | Hi! What is {a} plus {b}?
    """
)


def plain(question: str) -> str:
    """A question without case and final mark."""
    return question.lower().rstrip("?.!？。！ ")


KEPT_COMMANDS = frozenset(plain(question) for question, _ in (*WORDINGS_OF_COMMANDS, *BLIND_WORDINGS_OF_COMMANDS))
_GREETED = re.compile(r"(.*[,.:!?;，。：！？]|(?:and|now|please|so|ok so|well|first|请|请问|你好))\s*", re.DOTALL)


def is_kept(question: str) -> bool:
    """Whether a question is kept for evaluation, also after a greeting or before a 'please'.

    A longer question that only contains a kept one is another question: "Which command deletes models from my disk?".
    """
    whole = plain(question)
    for text in (whole, whole.removesuffix(" please").rstrip(",，")):
        ends = (text[cut:].strip() for cut in range(1, len(text)) if _GREETED.fullmatch(text[:cut]))
        if text in KEPT_COMMANDS or any(plain(end) in KEPT_COMMANDS for end in ends):
            return True
    return False
