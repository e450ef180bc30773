"""The commands that run and make models, and the one that looks after the computer."""

from __future__ import annotations

from .command import Command

APP = Command(
    "qwen-mlx",
    "it opens the app in your terminal",
    "它在终端里打开应用",
    """
    start | open | launch | run | begin with | get into | bring up | fire up | use | start up | get back to | enter |
    return to | restart | reopen | show | boot | call up | go to | see
    """,
    """
    the app | qwen-mlx | the terminal app | the TUI | the program | the interface | the full screen app |
    this application | the user interface | the application | the terminal UI | the GUI | the tool | this app |
    the terminal interface | the main window | the software | the full-screen interface | the graphical interface |
    the qwen-mlx app | this program
    """,
    """
    start | get started | get going | begin | start everything | open the window | see the interface |
    start it again | open it again tomorrow | come back to the app later | launch | launch it | start it | open it |
    run it | open up the app in my terminal | start qwen-mlx for the first time | get to the welcome screen |
    go back into the app | open the app after installing | work in full screen | use the keyboard interface |
    start the thing | open the screen with my chats | open the main screen | get the app running
    """,
    """
    the app | the TUI | the terminal app | the interface | the user interface | the full screen app | app start |
    launching | starting up | the first start | the graphical interface | full screen mode
    """,
    """
    I just installed it, what do I type first? | What is the first command? | I installed qwen-mlx. How do I start? |
    Where is the app? | Everything is installed, how do I begin? | I left the app and want to go back. |
    I closed it by mistake, how do I open it again? | What do I type after installing? | what do i type to begin |
    I quit the app. How can I get it back? | Is there a user interface? | Does it have a TUI? | Is there a GUI? |
    How does one start this thing? | It is installed but how do I launch it? | My terminal is open, what now? |
    Which word starts the app?
    """,
    "启动 | 打开 | 运行 | 进入 | 开启 | 使用 | 重新打开 | 重新启动 | 开 | 回到",
    "应用 | qwen-mlx | 界面 | 程序 | 这个程序 | 终端界面 | TUI | 软件 | 这个软件 | 主界面 | 图形界面 | app | 这个工具",
    "开始使用 | 开始 | 第一次启动 | 在终端里打开应用 | 在终端启动程序 | 再次打开应用 | 看到界面 | 启动它 | 打开它",
    """
    装好了，第一步输入什么？ | 安装完了怎么启动？ | 刚装好，怎么开始？ | 应用在哪里？ | 我退出了，怎么再进去？ |
    有图形界面吗？ | 不小心关掉了应用，怎么再打开？ | 第一个命令是什么？ | 有没有界面？
    """,
)
CHAT = Command(
    "qwen-mlx chat",
    "it chats with a model",
    "它和模型聊天",
    """
    chat with | talk to | talk with | have a conversation with | speak with | ask questions to | speak to |
    converse with | send messages to | write with | discuss with | have a dialogue with | prompt | ask | write to |
    send a prompt to | give a prompt to | get an answer from | try out_in a chat | start a chat with |
    hold a talk with | send a question to | have a chat with | put a question to | get a reply from | message
    """,
    """
    {m} | {m} | a bigger model | another model | an assistant | my fine-tuned model | the AI | a quantized model |
    my trained model | the bot | a local model | a local LLM | a chatbot | my adapter
    """,
    """
    chat | start a chat | have a chat | chat in the terminal | start chatting | begin a conversation |
    ask the model something | try a model | chat from the command line | start a conversation |
    chat without the full screen app | talk | ask a question from the shell | ask one question on the command line |
    try out a model in a conversation | have a dialogue | hold a conversation | prompt a model | ask something |
    chat right in the shell | talk in plain text | ask a quick question | get an answer in the terminal |
    write a prompt | run a prompt | pipe a question to a model | use a model in a script as a chat | generate text |
    generate an answer | let the model write a text | run a single prompt | run {m} in the terminal |
    chat without the app | say hello to {m} | ask {m} to write a poem | have {m} summarize a text |
    chat line by line | run {m} interactively | test {m} in a chat | get a response to a prompt | continue chatting |
    play with {m} | let {m} answer my questions | interact with {m}
    """,
    """
    chatting | a chat | a conversation | conversations | a chat with {m} | a dialogue | prompts | text generation |
    a simple chat | chatting in the shell | a question to {m} | questions and answers | one prompt | a line chat |
    interactive chat | talking to {m} | command line chat
    """,
    """
    I do not want the full screen app, just a chat. | I have a question for the model. |
    I want an answer in my shell. | I only need a single answer on the command line. |
    I'd like to ask {m} something. | Can I talk to {m} here? | What do I type so that {m} answers me? |
    I want {m} to answer me. | Without the app, just plain chat? | I want to see what {m} answers. |
    Can {m} answer a question in the terminal? | I want to try {m} with a prompt. |
    I have finished training and want to talk to my model. | Is there a plain text chat? | let me talk with {m}
    """,
    """
    和_聊天 | 跟_聊天 | 与_对话 | 跟_对话 | 和_对话 | 和_说话 | 问_问题 | 向_提问 | 和_交谈 | 同_聊 | 跟_聊 | 试用 |
    给_发消息 | 问
    """,
    "{m} | {m} | AI | 助手 | 微调后的模型 | 量化后的模型 | 机器人 | 别的模型",
    """
    聊天 | 开始聊天 | 对话 | 在终端里聊天 | 开始对话 | 在命令行聊天 | 试一下模型 | 直接在终端提问 | 问一个问题 |
    让模型回答问题 | 不用界面聊天 | 生成文本 | 发一条消息 | 运行一个提示词 | 在命令行里提问 | 开始一个对话 | 聊一聊
    """,
    """
    我不要全屏界面，只想聊天。 | 我有个问题想问模型。 | 想在命令行得到回答。 | 只想问一句话。 | 想看看模型怎么回答。 |
    我想让{m}回答我。 | 训练好了，想和它聊聊。
    """,
)
PULL = Command(
    "qwen-mlx pull",
    "it downloads a model, e.g. `qwen-mlx pull qwen3:0.6b`",
    "它下载模型，例如 `qwen-mlx pull qwen3:0.6b`",
    """
    download | get | pull | fetch | install | obtain | grab | add | load down | retrieve | acquire | pull down |
    get hold of | get_onto my computer | get_on my machine | get_from Hugging Face | download_from the hub |
    put_on my Mac | get_from the internet | transfer_to my laptop
    """,
    """
    {m} | {m} | {m} | a bigger model | a real model | the weights | model weights | a new model |
    a model from Hugging Face | a model from the hub | a checkpoint | another model | a better model | more models |
    the 4B model | the 8B model | a small Qwen | a real Qwen | the newest model | an MLX model | a 4-bit model |
    a larger Qwen | a smaller model | my first model | the safetensors files | a repo from Hugging Face
    """,
    """
    download from the hub | get a model from the internet | resume a download | continue a download |
    download Qwen to my computer | have a real Qwen on my machine | get Qwen on my Mac | download |
    copy a model from the hub to my disk | continue an interrupted download | get hold of a larger Qwen |
    finish a broken download | download from Hugging Face | download from huggingface.co | download from ModelScope |
    get the files of {m} | have {m} on my disk | go on with a download | restart a failed download |
    get {m} for offline use | set up {m} on this computer | load {m} from the web | get models | find a model to use |
    update {m} to the newest version | get the weights of {m} | get the latest Qwen | try {m} that I do not have yet |
    have a model that is better than the demo | save {m} to this machine | copy {m} from the internet
    """,
    """
    downloading | downloads | a download | model download | model downloads | the download of {m} | downloading {m} |
    getting models | new models | a new model | weights from Hugging Face | a Hugging Face download |
    resuming downloads | an interrupted download | fetching weights | {m} from the hub | getting {m}
    """,
    """
    I do not have a model. | My download was interrupted. | The download broke off. |
    The download stopped in the middle. | I need a real model. | I want a better model than the demo. |
    I have no models on this computer. | I need {m} here. | Where can I get {m}? | From where do I get {m}? |
    Where do the models come from? | There is no model here yet. | The network failed during the download. |
    I lost the connection while downloading. | {m} is on Hugging Face, I need it here. |
    {m} is missing on this machine. | I want {m} on my computer. | Is {m} available for download? |
    I need the weights of {m}. | How do models get onto my computer? | I found {m} on Hugging Face. |
    I have only the demo model.
    """,
    """
    下载 | 获取 | 拉取 | 安装 | 拿到 | 得到 | 下 | 拉 | 取得 | 从网上下载 | 从Hugging Face下载 | 把_下载到电脑 |
    把_下到本地
    """,
    """
    {m} | {m} | {m} | 权重 | 新模型 | 更大的模型 | 真正的Qwen | 更好的模型 | 模型权重 | 另一个模型 | 4位模型 |
    模型文件 | 最新的模型
    """,
    """
    继续下载 | 从网上下载模型 | 从Hugging Face下载 | 恢复下载 | 断点续传 | 继续中断的下载 | 下载 | 从魔搭下载模型 |
    把模型下载到本地 | 重新开始下载 | 在电脑上得到Qwen
    """,
    """
    我还没有模型。 | 下载中断了。 | 下载断了怎么办？ | 电脑上没有模型。 | 我需要一个真正的模型。 | 从哪里得到{m}？ |
    哪里可以下载{m}？ | 网络断了，下载没完成。 | 在哪下{m}？ | 只有演示模型，想要更好的。 | {m}怎么下载？
    """,
)
CONVERT = Command(
    "qwen-mlx convert",
    "it converts a checkpoint to the MLX format",
    "它把权重转换成 MLX 格式",
    """
    convert | transform | translate | change | turn | rewrite | reformat | port | bring | adapt the format of |
    switch | migrate | make
    """,
    """
    {m} to MLX | a checkpoint to MLX | a model into the MLX format | Hugging Face weights into MLX |
    a PyTorch model to MLX | weights to MLX | an AWQ model to MLX | a GPTQ model to MLX | a safetensors model to MLX |
    my own checkpoint to MLX | a torch checkpoint into MLX | a Hugging Face model into MLX weights |
    an FP8 model to MLX | PyTorch weights into MLX format | a transformers model to MLX | AWQ to MLX | GPTQ to MLX |
    a HF checkpoint for MLX | {m} into MLX format | PyTorch to MLX | the original weights to MLX |
    bf16 weights to MLX | a checkpoint in another format to MLX | a .safetensors file to MLX |
    a .bin checkpoint into MLX | FP8 weights to MLX
    """,
    """
    make MLX weights | use PyTorch weights | make a model run on MLX | change the weight format | convert |
    convert a model | prepare a checkpoint for MLX | run a PyTorch checkpoint with MLX | convert a checkpoint |
    convert weights | get MLX files from a Hugging Face repo | bring a model into MLX format |
    convert Hugging Face weights | convert models | convert an AWQ model | convert a GPTQ model |
    convert a PyTorch model | convert an FP8 checkpoint | convert {m} | change the format of a checkpoint |
    change the format of the weights | use an AWQ model | use a GPTQ model | use a transformers checkpoint |
    make a torch model work with MLX | make MLX understand a checkpoint | rewrite weights for MLX |
    get an MLX version of {m} | create MLX weights from PyTorch | translate weights | make an MLX model |
    transform weights | transform a checkpoint | run an AWQ checkpoint | load PyTorch weights in MLX
    """,
    """
    conversion | converting | model conversion | weight conversion | format conversion | conversion to MLX |
    converting weights | converting checkpoints | PyTorch weights | AWQ | GPTQ | an AWQ checkpoint |
    a GPTQ checkpoint | FP8 checkpoints | the MLX format | MLX conversion | Hugging Face to MLX | PyTorch to MLX |
    transformers to MLX
    """,
    """
    My model is in PyTorch format. | I have a PyTorch checkpoint. | I have an AWQ model. | I have a GPTQ checkpoint. |
    My weights are not in MLX format. | The checkpoint is not for MLX. | I have a model in transformers format. |
    I have Hugging Face weights and need MLX. | The repo only has PyTorch weights. | There is no MLX version of {m}. |
    My checkpoint has the wrong format for MLX. | MLX does not read my checkpoint. |
    The weights are in FP8, I need MLX. | I trained a model in PyTorch and want to use it with MLX. |
    I need MLX weights. | {m} only exists as PyTorch weights.
    """,
    "转换 | 转 | 变换",
    """
    {m} | 权重 | 检查点 | PyTorch模型 | AWQ模型 | GPTQ模型 | FP8模型 | 模型格式 | 权重格式 | Hugging Face模型 |
    safetensors权重
    """,
    """
    把模型转换成MLX格式 | 转换格式 | 把权重转成MLX | 把模型变成MLX格式 | 改变模型格式 | 把GPTQ模型转成MLX |
    把{m}转成MLX | 把PyTorch权重转换成MLX | 把AWQ权重转为MLX格式 | 把检查点转换为MLX | 得到MLX格式的权重 |
    把{m}变成MLX格式 | 转成MLX | 把Hugging Face的模型转成MLX | 在MLX里用PyTorch模型 | 使用AWQ模型 | 使用GPTQ模型 |
    格式转换 | 做MLX权重
    """,
    """
    我有一个PyTorch模型。 | 我的权重不是MLX格式。 | 我有AWQ模型，想用MLX。 | 我有一个GPTQ模型。 |
    模型是PyTorch格式的，怎么办？ | 没有MLX版本的权重。 | MLX读不了我的检查点。
    """,
)
QUANTIZE = Command(
    "qwen-mlx quantize",
    "it makes a model smaller with fewer bits",
    "它用更少的位数压缩模型",
    """
    quantize | quantise | shrink | compress | squeeze | reduce the size of | make_smaller | cut the memory of |
    lower the bits of | reduce the bits of | make_use less memory | slim down | make_take less space |
    make_fit in memory | quantize_to 4 bits | quantize_to 8 bits | get a 4-bit version of | make a 4 bit copy of |
    get_down to 4 bits | lower the precision of | reduce the memory of | make_lighter | scale down | pack |
    store_in 4 bits | make_tiny | turn_into 4 bit | reduce_to 8 bit | decrease the size of | lower the memory use of |
    get an 8-bit version of
    """,
    """
    {m} | {m} | {m} | the weights | weights | a checkpoint | a big model | my fine-tuned model | a bf16 model |
    a large model | a model that is too big
    """,
    """
    quantize to 4 bits | quantize to 8 bits | make a 4-bit model | use 4 bit weights | save memory | save RAM |
    fit a big model in memory | reduce memory use | use less RAM | get a smaller model file | make an 8-bit model |
    store weights with fewer bits | make a model need less memory | quantize | get smaller weights | use fewer bits |
    pack weights into 4 bits | go from bf16 to 4 bit | go from 16 bit to 8 bit | use int4 weights | use int8 |
    run a big model on a small Mac | run {m} with 8 GB | fit {m} into 16 GB of memory | make 3-bit weights |
    quantize to 6 bits | get a mixed-precision model | do 4-bit quantization | do a quantization | lower memory |
    need less memory | need less RAM | make the files smaller | quantize with group size 32 | make mxfp4 weights |
    have {m} use less memory | choose the bits of the weights | quantize with AWQ | save memory with 4 bits
    """,
    """
    quantization | quantizing | quantisation | 4-bit | 4 bit | 8-bit | 8 bit | a 4-bit model | 4-bit weights | int4 |
    int8 | model compression | compression | compressing {m} | shrinking {m} | a smaller model | smaller weights |
    less memory | lower memory use | saving memory | fewer bits | 4-bit quantization | 8-bit quantization |
    quantization to 4 bits | a lower precision | less RAM | a quantized model | low-bit weights | making {m} smaller
    """,
    """
    {m} is too big for my memory. | {m} needs too much RAM. | I run out of memory. | My Mac has only 8 GB of RAM. |
    The model does not fit in memory. | I get an out of memory error. | My laptop has too little memory for {m}. |
    {m} is too large. | {m} uses too much memory. | There is not enough RAM for {m}. | I have little memory. |
    I have 16 GB and {m} does not fit. | I want to use less memory. | I need a 4-bit version. | I need fewer bits. |
    The weights are too big for my machine. | How can {m} run on a small computer? | The model is too heavy. |
    I have a 16-bit model and need 4 bits. | Can {m} be smaller? | Can the weights be smaller?
    """,
    """
    量化 | 压缩 | 缩小 | 把_变小 | 把_量化成4位 | 减小 | 把_量化到8位 | 减少_的内存 | 让_更小 | 降低_的精度 |
    让_占用更少内存 | 把_压缩到4位 | 把_变成4比特
    """,
    "{m} | {m} | {m} | 权重 | 模型体积 | 大的模型 | 微调后的模型",
    """
    量化 | 减少内存占用 | 做4比特模型 | 减小模型体积 | 量化到8位 | 节省内存 | 降低精度 | 做4位量化 | 4bit量化 |
    8bit量化 | 得到4位的模型 | 用更少的内存 | 省内存 | 量化成4bit | 让模型放进内存 | 用4位权重 |
    在小内存上运行大模型 | 减少位数
    """,
    """
    模型太大了。 | 内存不足。 | {m}太大，放不进内存。 | 我的电脑只有8GB内存。 | {m}占用太多内存。 |
    内存太小，跑不动{m}。 | 我想要4位的版本。 | 显存不够怎么办？ | 模型太占内存了。
    """,
)
EVAL = Command(
    "qwen-mlx eval",
    "it measures how good a model is",
    "它评测模型的好坏",
    """
    evaluate | test | measure the quality of | check the quality of | score | assess | rate | judge |
    evaluate the quality of | grade | measure the perplexity of | compute the perplexity of | test the quality of |
    find the accuracy of | measure the accuracy of | calculate the perplexity of | get the perplexity of |
    determine the quality of | know the quality of | eval | get a score for | run an evaluation of |
    examine the quality of | measure how good_is | check how good_is | see how well_does | test how good_is |
    calculate the accuracy of | put a number on the quality of
    """,
    """
    {m} | {m} | {m} | a quantized model | my fine-tuned model | a checkpoint | two models | a 4-bit model |
    my adapter | my trained model | the quantized weights
    """,
    """
    compute perplexity | measure perplexity | see how good a model is | compare two models | calculate perplexity |
    run an evaluation | find out if quantization hurts | get the accuracy of a model | get perplexity |
    know how good my model is | check if a model got worse | measure quality | see the perplexity |
    find out which model is better | compare the quality of models | run an eval | run evals | evaluate |
    check how much quality was lost | evaluate on a dataset | measure accuracy | get quality scores |
    evaluate models | compare a quantized model with the original | see what quantization costs in quality |
    measure the loss on my texts | check whether my fine-tuning helped | find out if training made the model better |
    get the loss on a test set | run a benchmark of quality | run multiple choice questions |
    compare answers before and after training | measure how often {m} is right | know which of two models is better |
    compare the accuracy of two models | test a model on my questions | see if 4 bits are worse than 8 bits |
    find out if {m} is any good | evaluate on a test set | score a model on a benchmark | see how accurate {m} is |
    see how smart {m} is | check if the answers got worse after quantization | compute the loss |
    compare models by quality | run MMLU
    """,
    """
    evaluation | evaluating | perplexity | quality | accuracy | model quality | model evaluation | quality scores |
    an evaluation | the perplexity of {m} | the quality of {m} | evaluating {m} | evals | a quality test | scores |
    the accuracy of {m} | test set loss | quality after quantization | comparing the quality of models |
    measuring quality | measuring perplexity | a comparison of two models | the score of {m}
    """,
    """
    Is {m} any good? | Did quantization make my model worse? | Is the 4-bit model worse? | Did my training help? |
    How good is {m}? | How accurate is {m}? | Is my fine-tuned model better than before? |
    Which of my models is better? | What is the perplexity of {m}? | Is {m} better than another? |
    I want to know how good {m} is. | Did the quality drop? | Has my model become worse? |
    How much quality did I lose? | How well does {m} do on my test set? | I have a test set and want a score. |
    Does quantization hurt {m}? | I quantized a model, is it still good? | I trained a model. Is it better now? |
    How often is {m} right? | How smart is {m}?
    """,
    """
    评测 | 评估 | 评价 | 测试_的质量 | 测量_的质量 | 给_打分 | 检查_的质量 | 计算_的困惑度 | 测_的困惑度 |
    看看_有多好 | 测_的准确率 | 考核 | 衡量_的效果
    """,
    "{m} | {m} | {m} | 量化后的模型 | 微调后的模型 | 两个模型 | 4位模型 | 训练后的模型",
    """
    计算困惑度 | 比较两个模型 | 评估 | 测困惑度 | 测量准确率 | 看看模型质量 | 比较模型的好坏 | 知道哪个模型更好 |
    测试效果 | 看量化后质量有没有下降 | 跑评测 | 做评估 | 在数据集上评测 | 得到评分 | 看看训练有没有用 |
    测模型好不好 | 比较量化前后的质量
    """,
    """
    量化后模型变差了吗？ | {m}好不好？ | 我的模型有多好？ | 哪个模型更好？ | 训练后变好了吗？ | 困惑度是多少？ |
    {m}的质量怎么样？ | 微调有没有效果？ | 精度下降了多少？ | {m}的准确率是多少？
    """,
)
TRAIN = Command(
    "qwen-mlx train",
    "it fine-tunes a model on your data",
    "它用你的数据微调模型",
    """
    train | fine-tune | finetune | fine tune | tune | teach | adapt | continue training | specialize | customize |
    retrain | personalize | train_on my data | fine-tune_on my own texts | fine-tune_with LoRA |
    train_with my dataset | teach_new things | adapt_to my data | train a LoRA for | improve_with my examples |
    make_learn from my data | teach_my style | instruct
    """,
    """
    {m} | {m} | {m} | an adapter | a LoRA adapter | a LoRA | a model for my task | a quantized model |
    my own assistant | a small model | the model again
    """,
    """
    do LoRA | run LoRA training | run DPO | do preference training | train with my dataset | do fine-tuning | do DPO |
    make the model learn my style | fine-tune | start a training run | train | run a fine-tuning job | fine tune |
    resume training | make a LoRA | do QLoRA | do supervised fine-tuning | run QLoRA | do ORPO | do SFT | use LoRA |
    continue a training that stopped | customize a model with my data | learn from my examples | make an adapter |
    improve a model with my examples | train on my documents | do GRPO | make the model better at my task |
    train on my own data | train on my conversations | fine-tune on a jsonl file | use my data to improve a model |
    teach {m} my company's rules | teach {m} a new language | make {m} speak like me | make {m} know my documents |
    build my own model from Qwen | create a LoRA adapter | resume a stopped training |
    get a model that knows my data | run reinforcement learning | train with preferences |
    train on pairs of good and bad answers | run SFT | do full fine-tuning | continue pretraining on my texts |
    make a model of my own | train my first adapter
    """,
    """
    training | fine-tuning | finetuning | fine tuning | LoRA | LoRA training | QLoRA | DPO | GRPO | SFT | a LoRA |
    a training run | adapter training | training an adapter | supervised fine-tuning | preference training |
    my own data | training on my data | a fine-tune of {m} | teaching {m} | training with LoRA | model training |
    customizing {m} | reinforcement learning | learning from my examples | a fine-tuning job | an adapter of my own |
    preference data
    """,
    """
    I have a dataset and want {m} to learn it. | I have examples and want a model that answers like them. |
    {m} does not know my topic. | I want {m} to write in my style. | My training was interrupted. |
    The training stopped. | I have a jsonl with questions and answers to learn from. | I have my own data for {m}. |
    I want my own model. | I have pairs of good and bad answers. | Can {m} learn from my documents? |
    Can {m} learn my writing style? | {m} should know my company's documents. |
    I want to make {m} better at my task. | Can I give {m} new knowledge? |
    My training run crashed and I want to continue it. | I have support tickets that {m} should learn from.
    """,
    """
    训练 | 微调 | 用我的数据训练 | 用LoRA微调 | 教 | 用自己的数据微调 | 继续训练 | 让_学习我的数据 | 定制 |
    用我的数据集微调 | 改进 | 重新训练
    """,
    "{m} | {m} | {m} | 适配器 | LoRA | 自己的模型 | LoRA适配器 | 小模型",
    """
    微调 | 训练 | 做LoRA | 教模型新知识 | 做DPO训练 | 让模型学我的风格 | 用LoRA | 做QLoRA | 做LoRA训练 |
    继续中断的训练 | 做SFT | 在我的数据上训练 | 用自己的数据训练 | 恢复训练 | 做监督微调 | 做偏好训练 |
    训练自己的模型 | 让模型学会我的文档 | 跑GRPO
    """,
    """
    我有自己的数据，想让模型学习。 | 训练中断了怎么继续？ | 我想要自己的模型。 | 我有问答数据，想训练。 |
    {m}不懂我的领域怎么办？ | 我想让{m}像我一样说话。 | 有一个数据集，想让{m}学会。
    """,
)
SERVE = Command(
    "qwen-mlx serve",
    "it starts a server with the OpenAI API",
    "它启动兼容 OpenAI 接口的服务器",
    """
    serve | host | offer | expose | provide | deploy | publish_on my network | make_available over HTTP |
    run_as a server | serve_over HTTP | share_over the network | run_as an API | put_behind an API |
    offer_as a service | set up | start | run | launch | open
    """,
    """
    {m} as an API | {m} over the network | an API | an OpenAI API | an API server | an OpenAI compatible server |
    a local endpoint | an HTTP endpoint | a web service | a server for {m} | an inference server | an HTTP server |
    a REST API | a local API | a server with the OpenAI API | a model server | an OpenAI endpoint | the API |
    a server | the server | an LLM server | an API for {m} | a local server | a chat completions endpoint
    """,
    """
    serve a model | serve {m} | host {m} | deploy {m} | use the OpenAI client | connect other programs |
    use the model from another program | make an API | let other apps use {m} | connect my editor | serve |
    serve models | use {m} from Python requests | get an OpenAI compatible endpoint | use curl with {m} |
    open a port | get an API | access {m} over the network | connect VS Code | use {m} in VS Code |
    use {m} in my editor | connect Open WebUI | send HTTP requests to {m} | call {m} from my code |
    call {m} with curl | call {m} over HTTP | use the OpenAI API | use {m} from JavaScript | use {m} from my website |
    use the openai Python package with {m} | get a base URL | point the OpenAI SDK at {m} | let my phone use {m} |
    use {m} from another computer | listen on a port | connect a chat frontend | connect LangChain |
    use {m} in Cursor | make {m} reachable for other machines | make requests to {m} | get JSON answers over HTTP |
    let several people use {m} | replace ChatGPT's API | stream answers over HTTP | use {m} from other programs |
    open an endpoint | connect Continue in VS Code | offer {m} to my team | use /v1/chat/completions |
    run {m} in the background for other apps
    """,
    """
    a server | the server | an API | the API | the OpenAI API | an API server | an HTTP API | an endpoint | serving |
    serving {m} | an OpenAI compatible API | REST | HTTP | deployment | hosting {m} | the OpenAI client | curl |
    requests from other programs | VS Code | a web service | an OpenAI endpoint | the web server | a port |
    remote access | a connection from my editor | API access | the OpenAI SDK | use from other programs | a local API
    """,
    """
    My editor needs an endpoint. | My program speaks the OpenAI API. | I have an app that needs an OpenAI endpoint. |
    I want to call {m} from Python. | How can my code use {m}? | How can another program use {m}? | Is there an API? |
    How can my website talk to {m}? | Can I use the OpenAI client with {m}? | Can I use {m} from VS Code? |
    Is there a server? | Can I reach {m} from another computer? | Can my phone use {m}? |
    I need an address for my app. | Which port is it? | I want to send requests to {m}. |
    I write a web app and need {m} in it. | My friends should be able to use {m} too. | How does curl reach {m}? |
    Open WebUI asks for a URL. | LangChain wants a base URL. | How do I get {m} into my editor?
    """,
    "启动 | 开 | 运行 | 开启 | 提供 | 搭建 | 部署 | 起 | 打开 | 建",
    """
    服务器 | 服务 | API | API服务器 | 本地服务 | HTTP接口 | OpenAI接口 | API服务 | 模型服务 | 本地服务器 | 接口 |
    兼容OpenAI的服务器 | 网络服务
    """,
    """
    部署模型 | 部署{m} | 让别的程序使用{m} | 用OpenAI接口 | 部署 | 对外提供服务 | 用curl访问{m} | 用Python调用{m} |
    用HTTP访问{m} | 在VS Code里用{m} | 在别的程序里用{m} | 让其他电脑访问{m} | 把{m}做成API | 连接编辑器 |
    使用OpenAI客户端 | 用OpenAI的SDK | 让编辑器使用{m} | 通过网络使用{m} | 从代码调用{m} | 把{m}变成服务 | 发HTTP请求
    """,
    """
    我的程序需要OpenAI接口。 | 别的程序怎么用{m}？ | 有API吗？ | 我的编辑器需要一个接口。 | 能用OpenAI的客户端吗？ |
    怎么从Python调用{m}？ | 手机能访问{m}吗？ | 我的网站怎么用{m}？ | 有没有服务器？
    """,
)
DOCTOR = Command(
    "qwen-mlx doctor",
    "it checks your computer and the installation",
    "它检查你的电脑和安装",
    """
    check | diagnose | inspect | test | look at | examine | verify the state of | troubleshoot | debug |
    have a look at | find problems with | find out what is wrong with | see the state of | report on | analyze | fix
    """,
    """
    my installation | my computer | my system | my setup | my hardware | the installation | the setup | my GPU |
    what is wrong with my system | whether everything works | if my Mac is ready | my environment | the GPU backend |
    the qwen-mlx installation | my Mac | this machine | my Python environment | the MLX installation |
    my configuration | the dependencies | the backend | Metal
    """,
    """
    find problems | see what is wrong | debug my setup | see which backend is used | know if Metal works |
    find out why it is slow | check if everything is installed | see if MLX works | get help with errors |
    find out what is broken | see my GPU | check if the GPU is used | run a health check | check for problems |
    see whether my machine can run this | fix installation problems | print system information | see if Metal is on |
    see which BLAS is used | see the versions | report a bug with system details | diagnose problems |
    check whether MLX is installed | see which version of MLX I have |
    find out how much memory my Mac has for models | get a report of my system | see if something is missing |
    see if it is installed correctly | check if my computer is good enough | find the error |
    know which device is used | see if my installation works | check that all is well |
    collect information for a bug report | find the cause of a crash | find out why nothing works |
    diagnose an error | see which Python it uses | run diagnostics | get system info | see how much RAM is free |
    know if it runs on the GPU or the CPU
    """,
    """
    problems | diagnosis | diagnostics | a health check | an installation check | system information |
    troubleshooting | errors | the state of my system | my setup | a check of my computer | a system check |
    the versions | a self-test | bug reports | checking the installation | the backend in use | trouble | crashes |
    a broken installation | my hardware
    """,
    """
    It does not work. | Nothing works. | Something is wrong. | It crashes. | I get an error. | It is very slow, why? |
    I think my installation is broken. | Is everything installed correctly? | Is my Mac good enough? |
    Does Metal work? | Is the GPU used? | Is my computer ready? | Which backend is used? |
    Which version of MLX do I have? | The app crashes. | I get strange error messages. | It fails on my computer. |
    Is MLX installed properly? | Is my setup correct? | It runs on the CPU and not on the GPU. |
    After the update nothing works any more. | What is wrong with my system? |
    I want to report a bug, what should I include? | Is my Python fine? | Can this machine run it? |
    Why does it crash? | Why is everything so slow? | Does my hardware work with this? | it doesn't run |
    my installation fails | error when starting
    """,
    "检查 | 诊断 | 查看 | 排查 | 看看 | 测试 | 分析 | 修复",
    """
    安装 | 电脑 | 环境 | 系统 | 我的配置 | 硬件 | 安装情况 | 系统信息 | GPU | 我的系统 | 运行环境 | 安装问题 |
    我的电脑 | Python环境
    """,
    """
    诊断问题 | 看看哪里有问题 | 排查问题 | 检查安装是否正确 | 看看GPU能不能用 | 诊断 | 找出错误 | 做体检 |
    知道用的是哪个后端 | 查看版本 | 看MLX是否正常 | 排除故障 | 看看为什么慢 | 检查依赖 | 找出问题 | 健康检查 |
    看看有没有用GPU
    """,
    """
    出错了怎么办？ | 程序不能运行。 | 运行很慢，为什么？ | 安装好像有问题。 | 我的电脑能运行吗？ | Metal能用吗？ |
    GPU有没有用上？ | 总是崩溃。 | 出了问题，怎么查？ | 不能用了。 | 哪里坏了？ | MLX装好了吗？ | 一直报错。
    """,
)
