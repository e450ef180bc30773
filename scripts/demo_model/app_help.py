"""Questions about qwen-mlx: which command does what, and how the terminal app works."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from .tasks import Task, phrases, pick, roughen, split_phrasings
from .wordings import KEPT_COMMANDS, plain


@dataclass(frozen=True)
class Command:
    """One command line, what people call its job, and the sentence that answers."""

    line: str
    does: str
    does_zh: str
    verbs: str
    """Verbs separated by '|', each combined with each object."""
    objects: str
    free: str
    """Whole wishes that fit 'How do I ...?'"""
    wishes_zh: str

    def wishes(self) -> list[str]:
        """Every way of saying what one wants, in English."""
        combined = [
            f"{verb} {item}" if "_" not in verb else verb.replace("_", f" {item} ")
            for verb in split(self.verbs)
            for item in split(self.objects)
        ]
        return sorted({*combined, *split(self.free)})


def split(text: str) -> list[str]:
    """The parts of a '|' list."""
    return [" ".join(part.split()) for part in text.split("|") if part.strip()]


COMMANDS = [
    Command(
        "qwen-mlx",
        "it opens the app in your terminal",
        "它在终端里打开应用",
        "start|open|launch|run|begin with|get into|bring up|fire up|use|start up",
        """
        the app | qwen-mlx | the terminal app | the TUI | the program | the interface | the full screen app |
        this application | the user interface | the application
        """,
        """
        start | get started | get going | begin | start everything | open the window | see the interface |
        start it again | open it again tomorrow | come back to the app later
        """,
        """
        启动应用 | 打开应用 | 启动qwen-mlx | 打开界面 | 运行程序 | 开始使用 | 启动这个程序 | 打开终端界面 |
        运行qwen-mlx | 进入应用 | 打开TUI | 使用qwen-mlx | 启动软件
        """,
    ),
    Command(
        "qwen-mlx chat",
        "it chats with a model",
        "它和模型聊天",
        """
        chat with | talk to | talk with | have a conversation with | speak with | ask questions to |
        converse with | send messages to | write with | discuss with
        """,
        """
        a model | the model | Qwen | a Qwen model | my model | a local model | qwen3:8b | another model |
        the demo model | my fine-tuned model | an assistant | a bigger model
        """,
        """
        chat | start a chat | have a chat | chat in the terminal | start chatting | begin a conversation |
        ask the model something | try a model | chat from the command line | start a conversation |
        chat without the full screen app | talk | ask a question from the shell |
        try out a model in a conversation | have a dialogue | hold a conversation | prompt a model
        """,
        """
        和模型聊天 | 聊天 | 跟模型对话 | 与模型聊天 | 开始聊天 | 和Qwen聊天 | 对话 | 跟Qwen说话 |
        在终端里聊天 | 开始对话 | 和本地模型对话 | 试用一个模型 | 问模型问题 | 跟AI聊天
        """,
    ),
    Command(
        "qwen-mlx pull",
        "it downloads a model, e.g. `qwen-mlx pull qwen3:0.6b`",
        "它下载模型，例如 `qwen-mlx pull qwen3:0.6b`",
        "download|get|pull|fetch|install|obtain|grab|add|load down|retrieve",
        """
        a model | a Qwen model | Qwen3 | qwen3:0.6b | qwen3:8b | a bigger model | a real model | the weights |
        model weights | a new model | a model from Hugging Face | a model from the hub | a checkpoint |
        another model | a better model | more models |
        qwen3:4b | qwen3:1.7b | Qwen3 8B | the 4B model | a small Qwen | a real Qwen | the newest model
        """,
        """
        download from the hub | get a model from the internet | resume a download | continue a download |
        download Qwen to my computer | have a real Qwen on my machine | get Qwen on my Mac |
        copy a model from the hub to my disk | continue an interrupted download | get hold of a larger Qwen |
        finish a broken download
        """,
        """
        下载模型 | 下载一个模型 | 获取模型 | 拉取模型 | 下载Qwen | 下载Qwen3 | 下载qwen3:0.6b |
        得到一个更大的模型 | 从Hugging Face下载模型 | 安装模型 | 下载权重 | 下载新的模型 | 得到真正的Qwen |
        从网上下载模型 | 继续下载 | 拉一个模型
        """,
    ),
    Command(
        "qwen-mlx convert",
        "it converts a checkpoint to the MLX format",
        "它把权重转换成 MLX 格式",
        "convert|transform|translate|change|turn|rewrite|reformat",
        """
        a model to MLX | a checkpoint to MLX | a model to the MLX format | Hugging Face weights |
        a PyTorch model | weights to MLX | an AWQ model | a GPTQ model | a safetensors model |
        my own checkpoint to MLX | a torch checkpoint | a model into another format | an FP8 model
        """,
        """
        make MLX weights | use PyTorch weights | make a model run on MLX | change the weight format |
        prepare a checkpoint for MLX | convert a model | run a PyTorch checkpoint with MLX |
        get MLX files from a Hugging Face repo | bring a model into MLX format
        """,
        """
        转换模型 | 把模型转换成MLX格式 | 转换权重 | 转换格式 | 把权重转成MLX | 转换PyTorch模型 |
        把模型变成MLX格式 | 转换检查点 | 改变模型格式 | 把GPTQ模型转成MLX
        """,
    ),
    Command(
        "qwen-mlx quantize",
        "it makes a model smaller with fewer bits",
        "它用更少的位数压缩模型",
        """
        quantize | shrink | compress | squeeze | reduce the size of | make_smaller | cut the memory of |
        lower the bits of | reduce the bits of | make_use less memory | slim down | make_take less space
        """,
        """
        a model | the model | my model | Qwen | a Qwen model | the weights | a checkpoint | a big model
        """,
        """
        quantize to 4 bits | quantize to 8 bits | make a 4-bit model | get a 4-bit version |
        use 4 bit weights | save memory | fit a big model in memory | make a model fit in memory |
        make a model smaller | make the weights smaller | reduce memory use | turn a model into 4 bit |
        store weights with fewer bits | make a model lighter | use less RAM | get a smaller model file |
        make an 8-bit model | lower the precision of the weights | make a model need less memory |
        pack weights into 4 bits | quantize
        """,
        """
        量化模型 | 压缩模型 | 把模型变小 | 量化 | 缩小模型 | 把模型量化成4位 | 减少内存占用 | 让模型更小 |
        做4比特模型 | 减小模型体积 | 量化到8位 | 节省内存 | 让模型占用更少内存 | 降低精度
        """,
    ),
    Command(
        "qwen-mlx eval",
        "it measures how good a model is",
        "它评测模型的好坏",
        """
        evaluate | test | measure the quality of | check the quality of | score | assess | rate | judge |
        grade | measure the perplexity of | compute the perplexity of
        """,
        """
        a model | the model | my model | Qwen | a quantized model | my fine-tuned model | a checkpoint |
        two models
        """,
        """
        compute perplexity | measure perplexity | see how good a model is | compare two models |
        run an evaluation | find out if quantization hurts | get the accuracy of a model |
        know how good my model is | check if a model got worse | measure quality | see the perplexity |
        find out which model is better | compare the quality of models | run an eval |
        check how much quality was lost | evaluate on a dataset | measure accuracy | get quality scores
        """,
        """
        评测模型 | 评估模型 | 测试模型质量 | 计算困惑度 | 测量模型质量 | 看看模型有多好 | 比较两个模型 |
        评价模型 | 给模型打分 | 评估 | 检查模型质量 | 测困惑度
        """,
    ),
    Command(
        "qwen-mlx train",
        "it fine-tunes a model on your data",
        "它用你的数据微调模型",
        "train|fine-tune|finetune|tune|teach|adapt|continue training|specialize",
        """
        a model | the model | my model | Qwen | a Qwen model | Qwen on my data | a model on my data |
        a model with LoRA | a LoRA adapter | my own model | a model on my own texts | an adapter
        """,
        """
        do LoRA | run LoRA training | run DPO | do preference training | train with my dataset |
        teach the model new things | make the model learn my style | fine-tune | start a training run |
        resume training | make a LoRA | do QLoRA | do supervised fine-tuning |
        continue a training that stopped | customize a model with my data | learn from my examples |
        improve a model with my examples | train on my documents | do GRPO | make the model better at my task
        """,
        """
        训练模型 | 微调模型 | 微调 | 训练 | 用我的数据训练 | 做LoRA | 用LoRA微调 | 训练LoRA |
        让模型学习我的数据 | 微调Qwen | 继续训练 | 用自己的数据微调模型 | 教模型新知识 | 做DPO训练
        """,
    ),
    Command(
        "qwen-mlx serve",
        "it starts a server with the OpenAI API",
        "它启动兼容 OpenAI 接口的服务器",
        "serve|host|offer|expose|provide|deploy|publish on my network",
        """
        a model | the model | my model | Qwen | a model over HTTP | an API | an OpenAI API |
        a model as an API | a local endpoint | a model on my network
        """,
        """
        start a server | run a server | start the server | use the OpenAI client | connect other programs |
        get an HTTP endpoint | use the model from another program | make an API | start an API server |
        connect my editor | run a local API | use the model from Python requests |
        get an OpenAI compatible endpoint | run a web service | let other apps use the model |
        use curl with the model | open a port | start the web server | access the model over the network |
        connect VS Code
        """,
        """
        启动服务器 | 启动服务 | 开服务 | 部署模型 | 提供API | 启动API服务器 | 运行服务器 | 让别的程序使用模型 |
        用OpenAI接口 | 提供HTTP接口 | 开启API | 启动本地服务 | 部署 | 对外提供服务
        """,
    ),
    Command(
        "qwen-mlx doctor",
        "it checks your computer and the installation",
        "它检查你的电脑和安装",
        "check|diagnose|inspect|test|look at|examine|verify the state of|troubleshoot",
        """
        my installation | my computer | my system | my setup | my hardware | the installation | the setup |
        problems | what is wrong with my system | whether everything works | if my Mac is ready |
        my environment | the GPU backend
        """,
        """
        find problems | see what is wrong | debug my setup | see which backend is used | know if Metal works |
        find out why it is slow | check if everything is installed | see if MLX works | get help with errors |
        find out what is broken | see my GPU | check if the GPU is used | run a health check |
        see whether my machine can run this | fix installation problems | print system information |
        see which BLAS is used | see the versions | report a bug with system details
        """,
        """
        检查安装 | 检查电脑 | 检查环境 | 诊断问题 | 检查系统 | 看看哪里有问题 | 检查我的配置 | 检查硬件 |
        排查问题 | 检查安装是否正确 | 查看系统信息 | 看看GPU能不能用 | 诊断
        """,
    ),
    Command(
        "qwen-mlx bench",
        "it measures tokens per second",
        "它测量每秒生成多少词元",
        """
        benchmark | measure the speed of | test the speed of | time | clock | check the speed of |
        find the speed of | measure the throughput of
        """,
        """
        a model | the model | my model | Qwen | my computer | my Mac | generation | inference | my machine |
        a quantized model
        """,
        """
        measure speed | measure tokens per second | see how fast it is | run a benchmark | test performance |
        know how many tokens per second I get | compare speeds | find out how fast my Mac is |
        measure performance | get tokens per second | see how fast the model generates | run a speed test |
        measure latency | measure throughput | check the performance | compare the speed of two models |
        find out how quickly it answers | time the generation
        """,
        """
        测速 | 测量速度 | 测试速度 | 基准测试 | 跑分 | 看看有多快 | 测试性能 | 测量每秒词元数 | 测模型的速度 |
        性能测试 | 跑基准测试 | 知道模型有多快
        """,
    ),
    Command(
        "qwen-mlx list",
        "it lists the models on this computer",
        "它列出电脑上的模型",
        "list|see|show all|view|display|print|find out",
        """
        my models | the models | installed models | downloaded models | local models | which models I have |
        what models are installed | available models | models on my disk | all models | the models I have
        """,
        """
        see what I downloaded | know which models are here | list models | get a list of models |
        check which models are installed | count my models | get an overview of my models |
        see all the models on this machine | look through my models | see what is installed |
        know what is in my library
        """,
        """
        列出模型 | 查看已下载的模型 | 有哪些模型 | 查看本地模型 | 看看我有哪些模型 | 显示所有模型 |
        列出所有模型 | 查看安装的模型 | 查看模型列表 | 我下载了什么模型
        """,
    ),
    Command(
        "qwen-mlx show",
        "it shows the details of one model",
        "它显示一个模型的详细信息",
        "show|see|view|display|print|get|look at|read",
        """
        details of a model | the details of a model | model details | information about a model | model info |
        the config of a model | the architecture of a model | the size of one model |
        the parameters of a model | the layers of a model | the metadata of a model | the model card
        """,
        """
        inspect a model | know how many layers a model has | find out how big a model is |
        get facts on one model | see how a model is built | learn more about one model | look inside a model |
        know how many parameters a model has | see which quantization a model uses |
        see the context length of a model | examine a single model | describe a model
        """,
        """
        查看模型信息 | 查看模型详情 | 显示模型信息 | 模型的详细信息 | 查看模型参数 | 看看模型有多少层 |
        查看模型结构 | 查看一个模型 | 显示模型详情 | 查看模型配置 | 了解一个模型
        """,
    ),
    Command(
        "qwen-mlx verify",
        "it checks that the files of a model are complete",
        "它检查模型文件是否完整",
        """
        verify | check the files of | check the integrity of | validate | check the checksums of |
        check the hashes of | make sure nothing is missing in
        """,
        """
        a model | a downloaded model | my model | the model | a download | the weights | a checkpoint |
        the downloaded files | model files
        """,
        """
        check if a download is complete | see if files are damaged | find broken files | check the checksum |
        make sure a model is not corrupted | check a model for corruption | see whether a model is intact |
        find damaged weights | be sure the download is correct | check hashes |
        know if my download is corrupt | detect missing files | confirm the files are intact |
        make sure the files are complete
        """,
        """
        校验模型 | 检查模型文件 | 验证模型 | 检查下载是否完整 | 校验文件 | 检查文件是否损坏 | 验证下载 |
        检查模型是否完整 | 核对校验和 | 校验
        """,
    ),
    Command(
        "qwen-mlx rm",
        "it deletes a model from this computer",
        "它从电脑上删除模型",
        "delete|remove|erase|uninstall|get rid of|throw away|drop|clean up|wipe",
        """
        a model | an old model | my model | the model | a downloaded model | models I do not need |
        a checkpoint | the weights | unused models | qwen3:8b | a big model
        """,
        """
        free disk space | free up space | make room on my disk | clear space | delete model files |
        get disk space back | clean my disk | throw out a model | have more free space on the disk |
        empty the model folder
        """,
        """
        删除模型 | 移除模型 | 卸载模型 | 删掉一个模型 | 清理磁盘 | 释放磁盘空间 | 去掉模型 | 删除旧模型 |
        删除下载的模型 | 腾出空间 | 清除模型 | 删模型
        """,
    ),
    Command(
        "qwen-mlx import",
        "it brings a model from a folder or a GGUF file into your library",
        "它把文件夹或 GGUF 文件里的模型导入模型库",
        "import|bring in|take over|register|add to my library|load in",
        """
        a GGUF file | a GGUF model | a local model | a model from a folder | a model from Ollama |
        a model from LM Studio | a folder with weights | a file | my own model folder | an existing model |
        a model from a USB stick
        """,
        """
        use a GGUF file | use a model I already have | use a model from Ollama | use a local folder |
        load a gguf | import a model | open a GGUF | reuse my Ollama models |
        use weights that are already on my disk | use a model folder from a friend |
        add a GGUF to the library | make qwen-mlx know a folder on my disk
        """,
        """
        导入模型 | 导入GGUF | 导入GGUF文件 | 使用GGUF文件 | 导入本地模型 | 从文件夹导入模型 |
        使用本地文件夹的模型 | 从Ollama导入模型 | 导入 | 导入已有的模型
        """,
    ),
    Command(
        "qwen-mlx export",
        "it writes a model out for other programs",
        "它把模型导出给其他程序",
        "export|write out|hand over|give away|save for others|output",
        """
        a model | my model | the model | my fine-tuned model | an adapter | a LoRA adapter | a merged model |
        a model to GGUF | a model as GGUF | the weights | a model for Ollama | a model for llama.cpp |
        a model to another program
        """,
        """
        make a GGUF file | create a GGUF | use my model in Ollama | share my model | merge the adapter |
        fuse a LoRA | use my model in llama.cpp | save my model for another program | export to GGUF |
        take my model elsewhere | bake the adapter into the model | use my trained model in another app |
        give my model to a friend | write a GGUF
        """,
        """
        导出模型 | 导出GGUF | 导出成GGUF | 导出 | 把模型给别的程序用 | 合并LoRA | 分享模型 | 导出微调后的模型 |
        在Ollama里用我的模型 | 生成GGUF文件 | 导出权重
        """,
    ),
    Command(
        "qwen-mlx data inspect",
        "it looks through a training data set",
        "它检查训练数据",
        "inspect|look at|check|examine|view|validate|preview|analyze|review",
        """
        my data | my dataset | training data | my training data | a dataset | a data set | a JSONL file |
        my examples | the data before training | the training file | my jsonl
        """,
        """
        see if my data is right | check the format of my data | find errors in my dataset |
        see how long my examples are | count the tokens in my data | know if my dataset is good |
        find bad examples | see statistics of my data | check my data before training |
        find out if my training file is valid | look into my dataset |
        see what the training examples look like | detect duplicates in my data
        """,
        """
        检查数据 | 检查训练数据 | 查看数据集 | 检查数据集 | 查看训练数据 | 分析数据 | 检查我的数据格式 |
        看看数据对不对 | 预览数据集 | 验证数据 | 检查JSONL文件
        """,
    ),
]

FRAMES_EN = phrases(
    """
    How do I {w}? | How can I {w}? | how to {w} | How to {w}? | Which command do I use to {w}? |
    Which command should I use to {w}? | What command do I need to {w}? | Which command lets me {w}? |
    What is the command to {w}? | I want to {w}. | I want to {w} | I would like to {w}. | I'd like to {w} |
    I need to {w}. | What should I run to {w}? | What do I type to {w}? | What do I run to {w}? |
    What must I type to {w}? | Command to {w}? | command to {w} | Is there a command to {w}? |
    Tell me the command to {w}. | Tell me how to {w}. | Show me how to {w}. | Can I {w}? | Can you {w}? |
    Is it possible to {w}? | How would I {w}? | how do you {w} | What is the way to {w}? |
    What's the command to {w}? | Explain how to {w}. | Help me {w}. | Please help me {w}. | How should I {w}? |
    With which command can I {w}? | Which qwen-mlx command can {w}? | Can qwen-mlx {w}? | How does one {w}? |
    I am trying to {w}. | Which command would I use to {w}? | Name the command to {w}. | {w} |
    What command can {w}? | What command {w}? | Which command is for this: {w}? | What if I want to {w}? |
    Where can I {w}? | How could I {w} with qwen-mlx? | How do I {w} with qwen-mlx? | How do I {w} here? |
    Do you know how to {w}? | What do I use to {w}? | What should I use to {w}? | What can I use to {w}? |
    qwen-mlx: how do I {w}? | Let me {w}. | my goal is to {w}
    """
)
FRAMES_ZH = phrases(
    """
    怎么{w}？ | 如何{w}？ | 我想{w}。 | 我想{w} | 我要{w} | {w}用什么命令？ | 用什么命令{w}？ | 哪个命令可以{w}？ |
    怎样{w}？ | {w}的命令是什么？ | 请问怎么{w}？ | 怎么才能{w}？ | 告诉我怎么{w}。 | 我该怎么{w}？ |
    用qwen-mlx怎么{w}？ | 可以{w}吗？ | 能不能{w}？ | {w}要用哪个命令？ | 我需要{w}，怎么办？ |
    想{w}该用什么命令？ | 帮我{w} | {w} | 什么命令能{w}？ | 如何用qwen-mlx{w}？ | {w}怎么做？
    """
)
DOES_EN = phrases(
    """
    Which command {ws}? | What command {ws}? | which command {ws} | What {ws}? | Tell me which command {ws}. |
    Is there a command that {ws}? | Which of the commands {ws}? | What is the command that {ws}? |
    Which part of qwen-mlx {ws}? | Name the command that {ws}. | The command that {ws}? | Do you know what {ws}?
    """
)
DOING_EN = phrases(
    """
    Which command is for {wing}? | What is the command for {wing}? | Command for {wing}? | I need help with {wing}. |
    How does {wing} work? | What do I use for {wing}? | Tell me about {wing}. | {wing} | How about {wing}? |
    What do I need for {wing}? | Explain {wing}. | I am thinking of {wing}. | Any command for {wing}?
    """
)
KEYWORD_EN = phrases(
    """
    {k}? | {k} | {k} command? | the {k} command | How do I {k}? | how to {k} | What is the {k} command? |
    Can I {k} here? | I want to {k} | Which command is for {k}? | How does {k} work? | {k} something | {k} please
    """
)
OPENINGS_EN = phrases(
    """
    Hi, | Hello, | Hey, | Please tell me: | Quick question: | One more thing: | I am new here. | Sorry, | Ok, |
    I have a problem. | Another question. | Good morning! | Hi! | I use a Mac. | I just installed this. |
    I have a model. | Well, | So, | Excuse me,
    """
)
AND_EN = phrases(
    """
    And to {w}? | And how do I {w}? | and if I want to {w}? | What about if I want to {w}? | Then how do I {w}? |
    And how can I {w}? | ok, and to {w}?
    """
)
AND_ZH = phrases(
    """
    那怎么{w}呢？ | 那{w}呢？ | 如果想{w}呢？ | 然后怎么{w}？
    """
)
MEANING_EN = phrases(
    """
    What does {c} do? | What does `{c}` do? | What is {c}? | What is `{c}` for? | Explain {c}. | what is {c} for |
    Explain the command {c}. | What happens if I run {c}? | Tell me about {c}.
    """
)
MEANING_ZH = phrases(
    """
    {c}是做什么的？ | `{c}`有什么用？ | {c}命令是什么？ | 解释{c} | {c}是干什么的？
    """
)

Fact = tuple[str, str, list[str], str]  # topic, thinking, questions, answer

FACTS_EN: list[Fact] = [
    (
        "what",
        "What qwen-mlx is.",
        phrases(
            """
        What is qwen-mlx? | What does qwen-mlx do? | What is this app? | What is this program? |
        Tell me about qwen-mlx. | Describe qwen-mlx. | What is this project? | What is qwen-mlx for? |
        what's qwen-mlx | Explain qwen-mlx | What kind of app is this? | What can qwen-mlx do? | What am I using? |
        Why should I use qwen-mlx?
        """
        ),
        "qwen-mlx runs, quantizes, fine-tunes and serves Qwen models with MLX on your own computer.",
    ),
    (
        "licence",
        "The licence.",
        phrases(
            """
        What is the licence? | What is the license? | Which licence has qwen-mlx? | Is qwen-mlx free? |
        Is it open source? | Is this open source? | What license does qwen-mlx use? | May I use it at work? |
        Can I use it commercially? | Is it free? | Under which license is it? | Can I change the code? | license? |
        Is qwen-mlx open source?
        """
        ),
        "qwen-mlx is free under the MIT licence.",
    ),
    (
        "stop",
        "Stopping an answer.",
        phrases(
            """
        How do I stop an answer? | How do I stop you? | How can I stop generation? | How do I cancel? |
        Stop the answer | How do I interrupt the model? | How to stop generating? | How do I make it stop? |
        Which key stops the answer? | How do I abort? | Can I stop the model? | How do I cancel a reply? |
        What key stops generation? | how to interrupt | it does not stop talking, what do I press?
        """
        ),
        "Press Esc to stop an answer.",
    ),
    (
        "fold",
        "Folding the thinking.",
        phrases(
            """
        How do I fold the thinking? | How do I hide the thinking? | How do I see the thinking? |
        How can I show your thoughts? | How do I unfold the thinking? | Hide thinking | Show the thinking |
        How do I collapse the thinking block? | How do I expand the thoughts? | Where can I see what you think? |
        How to open the thinking block? | Can I see your thoughts? | Which key folds thinking? |
        How do I read the reasoning? | Show me your reasoning
        """
        ),
        "Ctrl+O folds or unfolds the thinking.",
    ),
    (
        "history",
        "The chat history.",
        phrases(
            """
        Where is my history? | Where are my chats? | Where is the history? | How do I find old chats? |
        How do I search my chats? | Are my chats saved? | Where are my old conversations? |
        How do I open a previous chat? | Can I see past chats? | How do I go back to an old conversation? |
        Where are chats stored? | Is the conversation saved? | Do you save chats? | Find a former chat |
        show my chat history | How do I continue yesterday's chat?
        """
        ),
        "Your chats are saved on this computer; press Ctrl+S to see and search them.",
    ),
    (
        "new_chat",
        "A new chat.",
        phrases(
            """
        How do I start a new chat? | How do I open a new conversation? | New chat | How do I begin again? |
        How do I clear the chat? | How do I start over? | Start a new conversation | Which key starts a new chat? |
        How to reset the conversation? | How do I make a fresh chat? | Can I start over? | clear the conversation
        """
        ),
        "Press Ctrl+N for a new chat.",
    ),
    (
        "choose_model",
        "Choosing a model.",
        phrases(
            """
        How do I change the model? | How do I switch models? | How do I choose another model in the app? |
        Which key shows the models? | How do I select a model? | Switch the model | Can I change the model? |
        How do I pick a different model? | Where do I choose the model? | use a different model in this chat |
        Change model
        """
        ),
        "Press Ctrl+L to choose a model.",
    ),
    (
        "quit",
        "Leaving the app.",
        phrases(
            """
        How do I quit? | How do I exit? | How do I close the app? | How do I leave? | Quit | Exit |
        Which key quits? | How can I close qwen-mlx? | How to exit the app? | How do I get out of here? |
        How do I end the program? | close the app | how to leave the app
        """
        ),
        "Press Ctrl+Q to quit.",
    ),
    (
        "newline",
        "A new line.",
        phrases(
            """
        How do I write a new line? | How do I insert a newline? | How do I write several lines? |
        How do I make a line break? | Which key is newline? | How to type multiple lines? |
        Can I write more than one line? | How do I add a line break to my message?
        """
        ),
        "Shift+Enter or Ctrl+J starts a new line; Enter sends.",
    ),
    (
        "send",
        "Sending.",
        phrases(
            """
        How do I send a message? | Which key sends? | How do I submit? | How to send my question? |
        What do I press to send?
        """
        ),
        "Press Enter to send.",
    ),
    (
        "keys",
        "The keys.",
        phrases(
            """
        Which keys are there? | What are the shortcuts? | Show the keyboard shortcuts. | Where is the help? |
        How do I see all keys? | Keyboard shortcuts? | What keys can I press? | How do I get help? |
        List the keys | Is there a list of shortcuts? | What are the hotkeys? |
        How do I open the command palette? | Where is the menu?
        """
        ),
        "F1 shows all keys; Ctrl+P opens the command palette.",
    ),
    (
        "settings",
        "The parameters.",
        phrases(
            """
        How do I change the temperature? | Where are the settings? | How do I set the system prompt? |
        How do I change top-p? | How do I change the parameters? | Change the temperature |
        Where can I set the temperature? | How do I change sampling settings? | How do I edit the settings? |
        make answers less random
        """
        ),
        "F2 opens the parameters of the chat.",
    ),
    (
        "edit",
        "Editing a message.",
        phrases(
            """
        How do I edit my message? | Can I change my last message? | How do I correct my question? |
        How do I edit the last message? | Change my last question | How to fix a typo in my message?
        """
        ),
        "Press Esc twice to edit your last message.",
    ),
    (
        "regenerate",
        "Another answer.",
        phrases(
            """
        How do I get another answer? | How do I regenerate? | How do I retry? | Can you answer again? |
        How do I repeat the answer? | Regenerate the answer | Try again | Give me a different answer
        """
        ),
        "Select the answer with Ctrl+Up and press R to get another one.",
    ),
    (
        "copy",
        "Copying.",
        phrases(
            """
        How do I copy an answer? | How do I copy code? | How do I copy text? | Copy the answer |
        Can I copy the code block? | How to copy a message?
        """
        ),
        "Select the message with Ctrl+Up; C copies it, Y copies its code.",
    ),
    (
        "hardware",
        "The hardware.",
        phrases(
            """
        Do I need a GPU? | What hardware do I need? | Does it run on Linux? | Does it run on a Mac? |
        Which computers are supported? | Does it run on Windows? | Do I need a Mac? | Does it work on a CPU? |
        What are the requirements? | Does it need Apple silicon? | Can I run it on Intel? | Where does it run?
        """
        ),
        "It is fastest on a Mac with Apple silicon; Linux works too, on the CPU.",
    ),
    (
        "private",
        "Privacy.",
        phrases(
            """
        Is my data private? | Do you send my data anywhere? | Does it need the internet? | Does it work offline? |
        Is it local? | Are my chats private? | Does anything leave my computer? | Do you run locally? |
        Is my conversation sent to a server? | Can I use it offline? | Do you upload my data?
        """
        ),
        "Everything runs on your computer; nothing is sent anywhere.",
    ),
    (
        "mlx",
        "What MLX is.",
        phrases(
            """
        What is MLX? | Tell me about MLX. | What does MLX mean? | Explain MLX | Who made MLX?
        """
        ),
        "MLX is Apple's array library for machine learning; qwen-mlx is built on it.",
    ),
    (
        "qwen",
        "What Qwen is.",
        phrases(
            """
        What is Qwen? | What are Qwen models? | Who makes Qwen? | Tell me about Qwen. | Explain Qwen |
        What does Qwen mean? | Where does Qwen come from?
        """
        ),
        "Qwen is a family of open language models by Alibaba Cloud; qwen-mlx runs them.",
    ),
    (
        "which_model",
        "Choosing a model.",
        phrases(
            """
        Which model should I use? | Which model is best? | What model do you recommend? |
        Which Qwen should I download? | Which model fits my computer? | What is a good model? | Recommend a model |
        Which model should I start with? | What is the best Qwen for me?
        """
        ),
        "Start with `qwen-mlx pull qwen3:0.6b`; with 16 GB or more try qwen3:4b or qwen3:8b.",
    ),
    (
        "no_model",
        "A real model.",
        phrases(
            """
        Why are you so bad? | How do I get a better model? | Why can't you answer this? |
        Why is the model so stupid? | Can I get a smarter model? | How do I get better answers? |
        How do I use a real Qwen? | I want a smarter model | Is there a better model?
        """
        ),
        "I am only the demo. Pull a real Qwen: `qwen-mlx pull qwen3:0.6b`",
    ),
    (
        "install",
        "Installing.",
        phrases(
            """
        How do I install qwen-mlx? | How do I install this? | How do I set up qwen-mlx? | How to install it? |
        Installation? | How do I install the app?
        """
        ),
        "In the source folder, `scripts/chat` sets everything up and starts the app.",
    ),
    (
        "options",
        "Help of a command.",
        phrases(
            """
        How do I see the options of a command? | What options does a command have? |
        Where is the command line help? | List all commands | Which commands are there? |
        What commands does qwen-mlx have? | Show all commands | What are the commands? |
        How do I see all commands? | command line help?
        """
        ),
        "`qwen-mlx --help` lists the commands; `qwen-mlx COMMAND --help` shows the options of one.",
    ),
    (
        "what_quant",
        "What quantization is.",
        phrases(
            """
        What is quantization? | What does quantization mean? | What is a 4-bit model? | Why quantize? |
        Explain quantization | What is a quantized model?
        """
        ),
        "Quantization stores weights with fewer bits, so a model needs less memory. Use `qwen-mlx quantize`.",
    ),
    (
        "what_lora",
        "What LoRA is.",
        phrases(
            """
        What is LoRA? | Explain LoRA | What does LoRA mean? | What is a LoRA adapter? | What is fine-tuning? |
        What is an adapter?
        """
        ),
        "LoRA trains a small adapter instead of the whole model. Use `qwen-mlx train`.",
    ),
]
FACTS_ZH: list[Fact] = [
    (
        "what",
        "qwen-mlx 是什么。",
        phrases(
            """
        qwen-mlx是什么？ | 什么是qwen-mlx？ | 这个程序是什么？ | 这是什么软件？ | 介绍一下qwen-mlx。 |
        qwen-mlx有什么用？ | 这个应用能做什么？ | qwen-mlx能做什么？
        """
        ),
        "qwen-mlx 用 MLX 在你自己的电脑上运行、量化、微调和部署 Qwen 模型。",
    ),
    (
        "licence",
        "许可证。",
        phrases(
            """
        许可证是什么？ | qwen-mlx是什么许可证？ | 它是开源的吗？ | qwen-mlx免费吗？ | 可以商用吗？ |
        这个软件免费吗？ | 用的什么协议？ | 是开源软件吗？
        """
        ),
        "qwen-mlx 使用 MIT 许可证，免费。",
    ),
    (
        "stop",
        "停止回答。",
        phrases(
            """
        怎么停止回答？ | 怎么停止生成？ | 如何停止？ | 怎么让你停下来？ | 按什么键停止？ | 如何中断回答？ |
        怎么取消？ | 怎么打断你？
        """
        ),
        "按 Esc 停止回答。",
    ),
    (
        "fold",
        "折叠思考。",
        phrases(
            """
        怎么折叠思考？ | 怎么隐藏思考？ | 怎么看思考过程？ | 如何展开思考？ | 怎么显示思考内容？ |
        在哪里看你的思考？ | 折叠思考按什么键？
        """
        ),
        "按 Ctrl+O 折叠或展开思考。",
    ),
    (
        "history",
        "聊天记录。",
        phrases(
            """
        聊天记录在哪里？ | 历史记录在哪？ | 怎么看以前的聊天？ | 怎么搜索聊天记录？ | 聊天会保存吗？ |
        怎么找到以前的对话？ | 如何打开旧的对话？ | 对话保存在哪里？
        """
        ),
        "聊天保存在你的电脑上；按 Ctrl+S 查看和搜索。",
    ),
    (
        "new_chat",
        "新对话。",
        phrases(
            """
        怎么开始新的聊天？ | 如何新建对话？ | 新对话 | 怎么重新开始？ | 怎么清空对话？ | 新建聊天按什么键？
        """
        ),
        "按 Ctrl+N 新建对话。",
    ),
    (
        "choose_model",
        "选择模型。",
        phrases(
            """
        怎么换模型？ | 怎么切换模型？ | 如何选择模型？ | 在哪里选模型？ | 怎么更换模型？
        """
        ),
        "按 Ctrl+L 选择模型。",
    ),
    (
        "quit",
        "退出。",
        phrases(
            """
        怎么退出？ | 如何退出程序？ | 怎么关闭应用？ | 退出 | 怎么离开？ | 退出按什么键？
        """
        ),
        "按 Ctrl+Q 退出。",
    ),
    (
        "newline",
        "换行。",
        phrases(
            """
        怎么换行？ | 如何输入多行？ | 换行按什么键？ | 怎么写多行？
        """
        ),
        "按 Shift+Enter 或 Ctrl+J 换行，Enter 发送。",
    ),
    (
        "keys",
        "按键。",
        phrases(
            """
        有哪些快捷键？ | 快捷键是什么？ | 怎么看帮助？ | 有哪些按键？ | 怎么查看快捷键？ | 帮助在哪里？
        """
        ),
        "F1 显示所有按键；Ctrl+P 打开命令面板。",
    ),
    (
        "settings",
        "参数。",
        phrases(
            """
        怎么改温度？ | 设置在哪里？ | 怎么设置系统提示？ | 如何修改参数？ | 怎么调整温度？
        """
        ),
        "按 F2 打开对话参数。",
    ),
    (
        "hardware",
        "硬件。",
        phrases(
            """
        需要GPU吗？ | 需要什么硬件？ | 能在Linux上运行吗？ | 能在Mac上用吗？ | 支持Windows吗？ |
        对电脑有什么要求？
        """
        ),
        "在苹果芯片的 Mac 上最快；Linux 也可以用 CPU 运行。",
    ),
    (
        "private",
        "隐私。",
        phrases(
            """
        我的数据安全吗？ | 需要联网吗？ | 可以离线使用吗？ | 你会上传我的数据吗？ | 是本地运行吗？ |
        聊天是私密的吗？
        """
        ),
        "一切都在你的电脑上运行，不会发送任何数据。",
    ),
    (
        "mlx",
        "MLX 是什么。",
        ["MLX是什么？", "什么是MLX？", "介绍一下MLX"],
        "MLX 是苹果的机器学习数组库，qwen-mlx 建立在它之上。",
    ),
    (
        "qwen",
        "Qwen 是什么。",
        phrases(
            """
        Qwen是什么？ | 什么是Qwen？ | 千问是什么？ | 介绍一下Qwen | 谁开发了Qwen？
        """
        ),
        "Qwen 是阿里云的开源语言模型系列，qwen-mlx 可以运行它们。",
    ),
    (
        "which_model",
        "选择模型。",
        phrases(
            """
        应该用哪个模型？ | 推荐哪个模型？ | 哪个模型最好？ | 我该下载哪个Qwen？ | 推荐一个模型
        """
        ),
        "先试 `qwen-mlx pull qwen3:0.6b`；内存 16 GB 以上可用 qwen3:4b 或 qwen3:8b。",
    ),
    (
        "no_model",
        "真正的模型。",
        phrases(
            """
        你为什么这么笨？ | 怎么得到更好的模型？ | 怎么用真正的Qwen？ | 有更好的模型吗？ | 我想要更聪明的模型
        """
        ),
        "我只是演示。下载真正的 Qwen：`qwen-mlx pull qwen3:0.6b`",
    ),
    (
        "install",
        "安装。",
        phrases(
            """
        怎么安装qwen-mlx？ | 如何安装？ | 怎么安装这个程序？
        """
        ),
        "在源代码目录里，`scripts/chat` 会准备好一切并启动应用。",
    ),
    (
        "options",
        "命令帮助。",
        phrases(
            """
        有哪些命令？ | 怎么看命令的选项？ | 列出所有命令 | qwen-mlx有哪些命令？ | 命令行帮助在哪？
        """
        ),
        "`qwen-mlx --help` 列出命令；`qwen-mlx 命令 --help` 显示选项。",
    ),
    (
        "what_quant",
        "量化是什么。",
        phrases(
            """
        什么是量化？ | 量化是什么意思？ | 为什么要量化？ | 什么是4位模型？
        """
        ),
        "量化用更少的位数存权重，省内存。用 `qwen-mlx quantize`。",
    ),
    (
        "what_lora",
        "LoRA 是什么。",
        ["什么是LoRA？", "LoRA是什么？", "什么是微调？"],
        "LoRA 只训练一个小适配器。用 `qwen-mlx train`。",
    ),
]


DOUBLED = frozenset("get run cut put chat slim drop begin set let shut".split())
"""Verbs that double their last letter before -ing."""


def third_person(wish: str) -> str:
    """'shrink a model' -> 'shrinks a model'."""
    verb, _, rest = wish.partition(" ")
    verb = {"have": "has", "do": "does", "be": "is"}.get(verb) or verb + ending(verb)
    return f"{verb} {rest}".strip()


def ending(verb: str) -> str:
    """The -s of the third person."""
    return "es" if verb.endswith(("s", "sh", "ch", "x", "z")) else "s"


def progressive(wish: str) -> str:
    """'shrink a model' -> 'shrinking a model'."""
    verb, _, rest = wish.partition(" ")
    if verb in DOUBLED:
        verb += verb[-1]
    elif verb.endswith("e") and not verb.endswith("ee"):
        verb = verb[:-1]
    return f"{verb}ing {rest}".strip()


@cache
def keywords() -> dict[str, list[str]]:
    """Command -> the single verbs that mean it and no other."""
    owners: dict[str, set[str]] = {}
    for command in COMMANDS:
        for verb in split(command.verbs):
            if verb.isalpha():
                owners.setdefault(verb, set()).add(command.line)
    vague = {"use", "open", "add", "see", "change", "turn", "drop", "grab", "time", "rate", "host"}
    return {
        command.line: [
            verb for verb in split(command.verbs) if owners.get(verb) == {command.line} and verb not in vague
        ]
        for command in COMMANDS
    }


def worded(rng: random.Random, command: Command, wish: str) -> str:
    """An English question for a wish, in one of many forms."""
    form = rng.random()
    if form < 0.62:
        question = pick(rng, FRAMES_EN).format(w=wish)
    elif form < 0.76:
        question = pick(rng, DOES_EN).format(ws=third_person(wish))
    elif form < 0.92 or not keywords()[command.line]:
        question = pick(rng, DOING_EN).format(wing=progressive(wish))
    else:
        question = pick(rng, KEYWORD_EN).format(k=pick(rng, keywords()[command.line]))
    if rng.random() < 0.08:
        question = f"{pick(rng, OPENINGS_EN)} {question}"
    return question


def command_answer(command: Command, language: str) -> tuple[str, str]:
    """Thinking and answer of 'which command'."""
    line = command.line
    name = "app" if line == "qwen-mlx" else line.removeprefix("qwen-mlx ")
    if language == "zh":
        extra = "（或源代码目录里的 `scripts/chat`）" if name == "app" else ""
        return f"命令是{name}。", f"用 `{line}`{extra}：{command.does_zh}。"
    extra = " (or `scripts/chat` in the source folder)" if name == "app" else ""
    return f"The command is {name}.", f"Use `{line}`{extra}: {command.does}."


def command_task(
    rng: random.Random,
    language: str,
    held_out_phrasing: bool = False,
    following: bool = False,
    command: Command | None = None,
) -> Task:
    """Which command does what the user wants? A held-out question has a wish that training never uses."""
    command = command or pick(rng, COMMANDS)
    wishes = split_phrasings(command.wishes() if language == "en" else split(command.wishes_zh), held_out_phrasing)
    while True:
        wish = pick(rng, wishes)
        if following:
            question = pick(rng, AND_EN if language == "en" else AND_ZH).format(w=wish)
        elif language == "zh":
            question = pick(rng, FRAMES_ZH).format(w=wish)
        else:
            question = worded(rng, command, wish)
        question = roughen(rng, " ".join(question.split()))
        if language == "en" and rng.random() < 0.5:
            question = question[0].upper() + question[1:]
        if plain(question) not in KEPT_COMMANDS:
            break
    thinking, answer = command_answer(command, language)
    return Task("command", question, thinking, answer, language, {"command": command.line})


def meaning_task(rng: random.Random, language: str) -> Task:
    """What does this command do?"""
    command = pick(rng, COMMANDS[1:])
    line = (
        command.line
        if rng.random() < 0.8
        else command.line.removeprefix("qwen-mlx ") + ("" if language == "zh" else " in qwen-mlx")
    )
    question = pick(rng, MEANING_EN if language == "en" else MEANING_ZH).format(c=line)
    if language == "zh":
        return Task(
            "meaning",
            question,
            f"解释命令{command.line.removeprefix('qwen-mlx ')}。",
            f"`{command.line}`：{command.does_zh}。",
            "zh",
            {"command": command.line},
        )
    return Task(
        "meaning",
        roughen(rng, question),
        f"Explain {command.line.removeprefix('qwen-mlx ')}.",
        f"`{command.line}`: {command.does}.",
        "en",
        {"command": command.line},
    )


def fact_task(rng: random.Random, language: str, held_out_phrasing: bool = False) -> Task:
    """How the app works and what it is."""
    topic, thinking, questions, answer = pick(rng, FACTS_EN if language == "en" else FACTS_ZH)
    question = roughen(rng, pick(rng, split_phrasings(questions, held_out_phrasing)))
    return Task("fact", question, thinking, answer, language, {"topic": topic, "answer": answer})


def draw(rng: random.Random, language: str, weights: Sequence[float]) -> Task:
    """Any question about qwen-mlx: a command, the meaning of one, or a fact, with these weights."""
    return rng.choices((command_task, meaning_task, fact_task), weights)[0](rng, language)
