"""The commands that look after the library of models, their files and speed, and data sets."""

from __future__ import annotations

from .command import Command

BENCH = Command(
    "qwen-mlx bench",
    "it measures tokens per second",
    "它测量每秒生成多少词元",
    """
    benchmark | measure the speed of | test the speed of | time | clock | check the speed of | speed test |
    find the speed of | measure the throughput of | measure the performance of | see how fast_is | know how fast_is |
    measure the latency of | see how fast_runs | measure how fast_runs | find out how fast_generates |
    get the tokens per second of | measure the tokens per second of | see the speed of | test the performance of |
    bench | check how quick_is | determine the speed of | compare the speed of | measure how quickly_answers
    """,
    """
    {m} | {m} | {m} | my computer | my Mac | generation | inference | my machine | a quantized model | the prompt |
    my laptop | my GPU | text generation | two models | my MacBook | this computer
    """,
    """
    measure speed | measure tokens per second | see how fast it is | run a benchmark | test performance | benchmark |
    know how many tokens per second I get | compare speeds | find out how fast my Mac is |
    measure the time per token | measure performance | get tokens per second | see how fast the model generates |
    run a speed test | time a model | measure latency | measure throughput | check the performance |
    compare the speed of two models | test the speed | find out how quickly it answers | time the generation |
    see how many tokens I get each second | measure prompt speed | see if quantization makes {m} faster |
    measure the time to the first token | know which model is faster | check the generation speed |
    get speed numbers | compare my Mac with others | see if my new Mac is faster | find out how long an answer takes |
    run performance tests | measure memory and speed | see tokens/s | do a speed test |
    measure prefill and decode speed | find the fastest model | see the token rate | check if {m} is fast enough
    """,
    """
    speed | a benchmark | benchmarks | benchmarking | tokens per second | tokens/s | performance | throughput |
    latency | a speed test | speed measurement | generation speed | the speed of {m} | measuring speed | timing |
    performance tests | token speed | inference speed | the speed of my Mac | prompt speed | speed numbers |
    comparing speeds | time to first token
    """,
    """
    How fast is {m}? | How fast is my Mac? | How fast is my computer? | How many tokens per second do I get? |
    Is {m} fast on my machine? | Which of two models is faster? | Is the quantized model faster? | Is 4 bit faster? |
    How long does {m} need for an answer? | How quick is {m}? | What speed do I get? | What is the speed of {m}? |
    I bought a new Mac and want to know its speed. | I want to know how fast {m} runs. |
    Is my laptop fast enough for {m}? | What is the throughput? | How many tokens a second can my GPU make? |
    I want numbers on speed. | What is the latency?
    """,
    """
    测量_的速度 | 测试_的速度 | 看看_有多快 | 测_的速度 | 给_测速 | 测_的性能 | 测试_的性能 | 给_跑分 | 知道_有多快 |
    比较_的速度
    """,
    "{m} | {m} | {m} | 生成 | 电脑 | 我的Mac | 我的电脑 | 推理 | 量化后的模型 | 两个模型 | 这台机器",
    """
    测速 | 测量速度 | 测试速度 | 基准测试 | 跑分 | 看看有多快 | 测试性能 | 测量每秒词元数 | 性能测试 | 跑基准测试 |
    测吞吐量 | 测延迟 | 知道每秒多少词元 | 看生成速度 | 知道哪个模型更快 | 测首个词元的时间 | 比较速度 |
    看每秒多少token | 速度测试
    """,
    """
    {m}有多快？ | 我的电脑有多快？ | 每秒多少词元？ | 速度是多少？ | 哪个模型更快？ | 4位的模型更快吗？ |
    回答要多久？ | 生成速度怎么样？ | 每秒几个token？ | 我的Mac跑{m}快不快？
    """,
)
LIST = Command(
    "qwen-mlx list",
    "it lists the models on this computer",
    "它列出电脑上的模型",
    """
    list | see | show | show all | view | display | print | find out | see all | list all | look at | get a list of |
    check | get an overview of | count | browse | enumerate | know | look through | name all | give me a list of
    """,
    """
    my models | the models | installed models | downloaded models | local models | which models I have |
    what models are installed | available models | models on my disk | all models | the models I have |
    the models on this computer | the installed models | which models are installed | all my models |
    the local models | which models are downloaded | the models in my library | every model I have |
    my downloaded models | my library | all the models here | all installed models | the names of my models
    """,
    """
    see what I downloaded | know which models are here | list models | list | list everything | know what I have |
    check which models are installed | see how many models I have | see what I already have |
    see all the models on this machine | look through my models | see what is installed |
    see everything I downloaded | know what is in my library | see how much space my models take |
    see the sizes of all my models | know which Qwen models I already have | find the names of my models |
    check if {m} is already installed | see if I already have {m} | find out what is on my disk |
    know how many models there are | see the model library | see my adapters and models | see which models I can use |
    see which models are ready to use | see which models are local
    """,
    """
    my models | installed models | local models | the models I have | downloaded models | all models |
    the list of models | a list of my models | a model list | the library | my library | the names of my models |
    an overview of my models | listing models | available models | the models on my disk | all my downloads |
    everything installed | the installed models
    """,
    """
    Which models do I have? | What models are there? | Which models are installed? | How many models do I have? |
    I forgot which models I downloaded. | Which models did I download? | What is in my library? | What is installed? |
    Which models can I use here? | Do I already have {m}? | Is {m} already on my computer? |
    What do I have on my disk? | I do not remember what I downloaded. | Which Qwen models are here? |
    Are there any models on this computer? | How much space do my models take? | What are my models called? |
    what have i got | Which models are on this machine? | Is there a list of my models? | what's installed? |
    models? | my models? | Which ones do I have?
    """,
    "列出 | 查看 | 显示 | 看看 | 看 | 列出所有 | 浏览 | 数一数 | 列举",
    """
    已下载的模型 | 本地模型 | 所有模型 | 安装的模型 | 模型列表 | 我有哪些模型 | 有哪些模型 | 我的所有模型 |
    电脑上的模型 | 全部模型 | 已有的模型 | 装了哪些模型 | 下载了哪些模型 | 模型库 | 下载过的模型 | 可用的模型
    """,
    """
    列出模型 | 有哪些模型 | 我下载了什么模型 | 知道有几个模型 | 看模型的清单 | 看看我有什么 | 知道哪些模型已经下载 |
    模型清单 | 知道{m}下载了没有 | 看看装了什么 | 列表 | 查看全部下载
    """,
    """
    我有哪些模型？ | 我下载了哪些模型？ | 有多少个模型？ | 忘了下载过什么模型。 | 已经装了哪些模型？ |
    {m}下载过了吗？ | 本地有什么模型？ | 磁盘上有哪些模型？ | 模型库里有什么？ | 现在有几个模型？
    """,
)
SHOW = Command(
    "qwen-mlx show",
    "it shows the details of one model",
    "它显示一个模型的详细信息",
    """
    show | see | view | display | print | get | look at | read | look up | find | know | check | examine | output |
    tell me | find out | give me
    """,
    """
    the details of {m} | details of {m} | model details | information about {m} | model info | info on {m} |
    facts about {m} | the config of {m} | the architecture of {m} | the size of {m} | the number of layers of {m} |
    the data of one model | the parameters of {m} | the layers of {m} | the metadata of {m} | the model card |
    the context length of {m} | the structure of {m} | the hidden size of {m} | the details of one model |
    how many layers {m} has | more about {m} | how many parameters {m} has | the bits of {m} |
    the quantization of {m} | the license of {m} | the vocabulary size of {m} | the properties of {m} |
    the number of parameters of {m} | the config.json of {m} | the number of heads of {m}
    """,
    """
    inspect a model | inspect {m} | know how many layers a model has | find out how big a model is | describe {m} |
    get facts on one model | see how a model is built | learn more about one model | look inside a model |
    look inside {m} | know how many parameters a model has | see which quantization a model uses | examine {m} |
    show {m} | show one model | see the context length of a model | examine a single model | describe a model |
    learn about {m} | know more about {m} | find out how many bits {m} has | find out how long the context is |
    see how big {m} is | see how {m} is built | see which architecture {m} has | print a summary of {m} |
    know how large {m} is | find out whether {m} is quantized | see everything about one model |
    know whether {m} is a mixture of experts | see where {m} is stored | look at {m} closely |
    see how many heads {m} has | see what {m} is made of | get the facts of {m} | know the hidden size |
    see one model in detail
    """,
    """
    details | model details | info | model information | the details of {m} | information about {m} |
    the architecture | the config | the number of layers | the number of parameters | the context length |
    the facts of one model | metadata | a description of {m} | the size of {m} | a summary of {m} |
    the structure of {m} | details on one model | inspecting {m} | the model card | the properties of {m}
    """,
    """
    How many layers does {m} have? | How many parameters does {m} have? | How big is {m}? | How large is {m}? |
    What is the context length of {m}? | Is {m} quantized? | How many bits does {m} have? |
    What kind of model is {m}? | Which architecture does {m} have? | What is inside {m}? | What is {m} made of? |
    How is {m} built? | I want to know more about {m}. | How many heads has {m}? | What is the hidden size of {m}? |
    Which licence does {m} have? | How long is the context of {m}? | Where is {m} stored? |
    What do we know about {m}? | Is {m} a 4-bit model? | What size is {m}? | I need the details of {m}. |
    Tell me more about {m}, layers and so on. | Which quantization has {m}?
    """,
    "查看 | 显示 | 看看 | 了解 | 看 | 打印 | 知道 | 查",
    """
    {m}的信息 | {m}的详情 | {m}的详细信息 | {m}的参数 | {m}有多少层 | {m}的结构 | {m}的配置 | {m}的大小 |
    {m}的上下文长度 | {m}有多少参数 | {m}的架构 | {m}用了几位 | 模型卡 | {m}的元数据 | 模型信息 | 单个模型 |
    {m}的层数 | 模型详情
    """,
    """
    了解一个模型 | 模型的详细信息 | 查看一个模型 | 知道模型有多大 | 看一个模型的内部 | 查看某个模型的情况 | 描述{m} |
    看{m}是怎么构成的
    """,
    """
    {m}有多少层？ | {m}有多少参数？ | {m}有多大？ | {m}的上下文有多长？ | {m}是量化的吗？ | {m}是什么架构？ |
    {m}是几位的？ | 想多了解{m}。 | {m}的结构是怎样的？
    """,
)
VERIFY = Command(
    "qwen-mlx verify",
    "it checks that the files of a model are complete",
    "它检查模型文件是否完整",
    """
    verify | check the files of | check the integrity of | validate | check the checksums of | check the checksum of |
    check the hashes of | make sure nothing is missing in | verify the files of | test the integrity of |
    check the completeness of | confirm the integrity of | verify the checksum of | check the sha256 of |
    compare the hashes of | check for damage in | find damaged files in | see if anything is missing in |
    make sure_is intact | make sure_is complete | check that_is not corrupted | check whether_is damaged |
    verify the hashes of | check if_is complete | validate the files of | verify the integrity of
    """,
    """
    {m} | {m} | a downloaded model | a download | the weights | a checkpoint | the downloaded files | model files |
    my download | the safetensors files | the model files | the files | the model folder | my downloads
    """,
    """
    check if a download is complete | see if files are damaged | find broken files | check the checksum | verify |
    make sure a model is not corrupted | check a model for corruption | see whether a model is intact |
    verify a model | find damaged weights | be sure the download is correct | check hashes | verify checksums |
    verify sha256 sums | know if my download is corrupt | detect missing files | confirm the files are intact |
    check checksums | check sha256 | make sure the files are complete | check if the files are complete |
    see if all files are there | check for bit rot | check the files on my disk for damage | check for missing files |
    know if the weights are intact | verify a download | check whether a file is corrupt |
    compare the files with the hub | find out if a download was complete |
    be certain that nothing is broken in the files | see if my files are the same as on the hub | verify models |
    check if the weights were damaged | validate weights | verify files | make sure the weights are not corrupt
    """,
    """
    verification | verifying | checksums | a checksum | sha256 | hashes | integrity | file integrity |
    an integrity check | damaged files | corrupt files | a corrupt download | broken files | missing files |
    checking the files | verifying downloads | corruption | the checksum of {m} | complete downloads | verifying {m} |
    intact weights
    """,
    """
    Is my download complete? | Are all files there? | Are the files damaged? | Is {m} corrupted? | Is {m} intact? |
    I think the download is broken. | The download may be damaged. | My disk had errors, are the files still good? |
    Are the weights intact? | Did the download finish correctly? | Is a file of {m} missing? |
    Is something missing in {m}? | Is the checksum right? | Is the sha256 right? |
    I copied {m} from a USB stick, is it complete? | Are the hashes right? | {m} may have broken files. |
    Was {m} downloaded completely? | Is {m} complete? | Are my model files correct? |
    The power went off while downloading, are the files good? | Could a file be corrupt? |
    Is the safetensors file damaged?
    """,
    """
    校验 | 验证 | 检查_的文件 | 检查_是否完整 | 核对_的校验和 | 检查_有没有损坏 | 验证_的完整性 | 检查_的完整性 |
    确认_完整 | 核对_的哈希
    """,
    "{m} | {m} | {m} | 下载 | 下载的文件 | 权重文件 | 模型文件 | 下载的模型 | 权重",
    """
    检查下载是否完整 | 检查文件是否损坏 | 核对校验和 | 校验 | 看看文件有没有坏 | 检查sha256 | 确认下载正确 |
    检查文件是否缺失 | 检查哈希值 | 看看模型有没有损坏 | 确认文件都在 | 找出损坏的文件 | 核对sha256
    """,
    """
    下载完整吗？ | 文件坏了吗？ | {m}完整吗？ | 文件是不是损坏了？ | 下载的文件对不对？ | 校验和对吗？ |
    有没有缺文件？ | {m}的文件有没有问题？ | 怀疑下载坏了。 | 权重完好吗？
    """,
)
RM = Command(
    "qwen-mlx rm",
    "it deletes a model from this computer",
    "它从电脑上删除模型",
    """
    delete | remove | erase | uninstall | get rid of | throw away | drop | clean up | wipe | throw out |
    take_off my disk | trash | clear | discard | delete_from disk | remove_from my computer |
    remove_from the library | kick out | dispose of | delete the files of | take away
    """,
    """
    {m} | {m} | {m} | an old model | a downloaded model | models I do not need | a checkpoint | the weights |
    unused models | a big model | a model I do not use | old models | the model files | an adapter |
    one of my models | all models | a model that I no longer need | the biggest model | some models
    """,
    """
    free disk space | free up space | make room on my disk | clear space | delete model files | remove | delete |
    get disk space back | clean my disk | throw out a model | have more free space on the disk | reclaim space |
    empty the model folder | free storage | get more storage | clean up old downloads | make my disk less full |
    free up gigabytes | clear the cache of models | save disk space | regain disk space | clean up my library |
    get space on my SSD | tidy up my models | remove things I do not use | use less disk space | empty my library |
    have less on my disk | clean out the library | make space for a new model
    """,
    """
    deletion | deleting | removal | removing models | deleting models | disk space | free space |
    more space on my disk | deleting {m} | removing {m} | cleaning up | a clean-up | clean up | freeing space |
    uninstalling {m} | old models | unused models | space | storage space | a full disk | rm
    """,
    """
    My disk is full. | I have no space left. | The disk is almost full. | I need space on my disk. |
    I need more disk space. | The models take too much disk space. | There is no room for another model. |
    {m} takes too much space on my disk. | I do not need {m} any more. | I no longer use {m}. |
    {m} is no longer needed. | I don't want {m} any more. | I have too many models. | No space left on device. |
    My SSD is full. | I downloaded the wrong model. | {m} can go. | I want {m} gone. |
    There are old models on my disk. | Not enough storage. | I do not want this model on my computer.
    """,
    "删除 | 移除 | 卸载 | 删掉 | 去掉 | 清除 | 清理 | 删 | 把_删除 | 把_删掉 | 把_从电脑上删除 | 丢掉 | 扔掉",
    "{m} | {m} | {m} | 旧模型 | 下载的模型 | 不需要的模型 | 模型文件 | 权重 | 没用的模型 | 所有模型 | 多余的模型",
    """
    清理磁盘 | 释放磁盘空间 | 腾出空间 | 释放空间 | 清理硬盘 | 删除 | 节省磁盘空间 | 得到更多硬盘空间 | 清空模型库 |
    整理磁盘
    """,
    """
    磁盘满了。 | 硬盘空间不够了。 | 没有空间了怎么办？ | 我不需要{m}了。 | 模型太多了。 | {m}占太多磁盘。 |
    下载错了模型。 | 硬盘满了怎么办？ | 不想要{m}了。 | 存储空间不足。
    """,
)
IMPORT = Command(
    "qwen-mlx import",
    "it brings a model from a folder or a GGUF file into your library",
    "它把文件夹或 GGUF 文件里的模型导入模型库",
    """
    import | bring in | take over | register | add_to my library | load in | add_to the library | take in | open |
    load | use | read | link | reuse | pick up | get_into the library | get_into qwen-mlx | bring_into qwen-mlx |
    make use of
    """,
    """
    a GGUF file | a GGUF model | a model from a folder | a model from Ollama | my Ollama models | a local GGUF |
    a .gguf file | a model from LM Studio | a folder with weights | my own model folder | an existing model folder |
    a local folder | a model from a USB stick | a model folder | a GGUF from Ollama | my LM Studio models | a gguf |
    GGUF weights | a folder with safetensors | a directory with a model | a local GGUF model |
    a model folder from a friend | a model that is already on my disk | a GGUF from llama.cpp |
    a model from another program | a model I already have | an Ollama model | a GGUF that I downloaded
    """,
    """
    import | import a model | import {m} | import models | use weights that are already on my disk | import a file |
    add a GGUF to the library | make qwen-mlx know a folder on my disk | convert a GGUF to MLX |
    turn a GGUF into MLX | use a model without downloading it again | use a model I got from a friend |
    use files I already downloaded | use a model from my external drive | load a model from disk | run a GGUF |
    run a gguf file with MLX | chat with a GGUF | share models with Ollama without a download |
    use my own folder of weights | point qwen-mlx at a folder | add my own model to the list | add a model from disk |
    add a folder of weights | take a model from LM Studio | bring a model from another computer |
    use models from llama.cpp | use a model from Ollama | add a local model
    """,
    """
    import | importing | GGUF import | a GGUF file | GGUF files | importing GGUF | importing a folder | local files |
    a model from disk | a local folder | a folder on my disk | Ollama models | LM Studio models |
    a model from a USB stick | existing files | importing {m} from disk | loading GGUF | models from Ollama |
    an existing model | my own files | gguf
    """,
    """
    I have a GGUF file. | I have a GGUF. | I have a folder with weights. | I already have the model in Ollama. |
    I have models in LM Studio. | My model is in a folder on my disk. | A friend gave me a model on a USB stick. |
    I downloaded a GGUF from Hugging Face. | I have {m} as a GGUF. | I have {m} in a local folder. |
    {m} is on my external disk. | The model is already on my computer, in Ollama. |
    I already downloaded the files with another program. | I do not want to download it again, it is in a folder. |
    Does it read GGUF? | Can it use GGUF files? | Can I use Ollama's models? | Can I use my LM Studio models? |
    My models are in Ollama. | The weights lie in a directory on my disk.
    """,
    "导入 | 使用 | 加载 | 引入 | 添加 | 打开 | 读取 | 把_导入模型库 | 把_加到模型库 | 载入",
    """
    GGUF | GGUF文件 | 本地文件夹的模型 | GGUF模型 | Ollama的模型 | LM Studio的模型 | 文件夹里的模型 | 已有的模型文件 |
    本地文件 | 本地的模型文件夹 | U盘里的模型 | 磁盘上的权重 | 自己的模型文件夹
    """,
    """
    导入模型 | 导入本地模型 | 从文件夹导入模型 | 从Ollama导入模型 | 导入 | 导入已有的模型 | 用已经下载的文件 |
    从U盘导入模型 | 从LM Studio导入模型 | 把GGUF转成MLX | 从硬盘加载模型 | 不重新下载就用已有的模型 | 导入{m}
    """,
    """
    我有一个GGUF文件。 | 模型在一个文件夹里。 | 我已经有Ollama的模型了。 | 朋友给了我一个模型文件。 |
    LM Studio里有模型，能用吗？ | 能用GGUF吗？ | 我的权重在本地目录里。
    """,
)
EXPORT = Command(
    "qwen-mlx export",
    "it writes a model out for other programs",
    "它把模型导出给其他程序",
    """
    export | write out | hand over | give away | save_for others | output | share | save_for another program |
    publish | use_in Ollama | use_in llama.cpp | use_in LM Studio | convert_to GGUF | turn_into a GGUF |
    save_as GGUF | write_as GGUF | export_to GGUF | make a GGUF of | create a GGUF from | export_to Ollama |
    take_to another program | pack_for others | merge the adapter into | send_to a friend
    """,
    """
    {m} | {m} | {m} | my fine-tuned model | a merged model | my trained model | my finished model |
    the result of my training | a fine-tuned Qwen | my LoRA model
    """,
    """
    export | make a GGUF file | create a GGUF | merge the adapter | export an adapter | export a LoRA adapter |
    export models | fuse a LoRA | use my model in other programs | save my model for another program |
    export to GGUF | write a GGUF | take my model elsewhere | bake the adapter into the model |
    use my trained model in another app | export to Ollama | give my model to a friend | merge a LoRA |
    merge LoRA weights | fuse an adapter | get a GGUF of {m} | produce a GGUF | use my adapter in another program |
    get one model out of base and adapter | run my model with llama.cpp | run my fine-tuned model in Ollama |
    write my model to a folder for others | upload my model to Hugging Face later |
    get weights that other programs read | convert MLX to GGUF | convert {m} to GGUF for Ollama |
    make a file for Ollama | go from MLX to GGUF | combine adapter and model | join the LoRA with the base model |
    save the merged weights | write a file for LM Studio | export the adapter | move my model to llama.cpp |
    give {m} to others | export for llama.cpp
    """,
    """
    export | exporting | GGUF export | exporting to GGUF | exporting {m} | a GGUF of my model | merging |
    merging an adapter | a merged model | fusing a LoRA | fusing | sharing {m} | export to Ollama | llama.cpp |
    Ollama export | model export | writing GGUF | MLX to GGUF | conversion to GGUF | a model for LM Studio |
    use in Ollama | other programs
    """,
    """
    I want my model in Ollama. | My friend uses llama.cpp and wants my model. | I need a GGUF of {m}. |
    I trained {m} and want to share it. | How does my model get into LM Studio? | How does my model get into Ollama? |
    I need my model as one file for Ollama. | I want to use my fine-tuned model in another app. |
    Can I get a GGUF from {m}? | Can I use {m} in Ollama? | Can I use my trained model in llama.cpp? |
    Can I use my adapter elsewhere? | I have an adapter and want a single model. |
    Other programs should be able to read my model. | My training is done. How do I share the result? |
    I want base model and adapter in one. | Can I give {m} to my colleagues?
    """,
    """
    导出 | 分享 | 输出 | 把_导出成GGUF | 把_转成GGUF | 把_给别的程序用 | 在Ollama里用 | 在llama.cpp里用 |
    把_分享给朋友 | 把_存成GGUF | 在LM Studio里用
    """,
    "{m} | {m} | {m} | 微调后的模型 | 训练好的模型 | 我训练的模型 | 合并后的模型 | 我的微调模型",
    """
    导出GGUF | 导出成GGUF | 导出 | 合并LoRA | 生成GGUF文件 | 导出权重 | 把适配器合并到模型 | 合并适配器 | 做一个GGUF |
    导出适配器 | 融合LoRA | 制作GGUF文件 | 导出到Ollama | 把MLX转成GGUF | 让别的程序读我的模型 | 导出LoRA适配器
    """,
    """
    我想在Ollama里用我的模型。 | 朋友用llama.cpp，想要我的模型。 | 训练好了，想分享模型。 | 我需要GGUF格式的{m}。 |
    别的程序怎么用我训练的模型文件？ | 想把适配器和模型合成一个。
    """,
)
DATA = Command(
    "qwen-mlx data inspect",
    "it looks through a training data set",
    "它检查训练数据",
    """
    inspect | look at | check | examine | view | validate | preview | analyze | review | look through |
    check the format of | find errors in | find mistakes in | see statistics of | check the quality of |
    get statistics on | browse | test | verify | count the tokens in | look into | find duplicates in |
    see what is in | proofread | go through
    """,
    """
    my data | my dataset | training data | my training data | a dataset | a data set | a JSONL file | my examples |
    datasets | the data before training | the training file | my jsonl | the training examples | my training set |
    the fine-tuning data | my train.jsonl | the dataset for training | the data for my LoRA | a training dataset |
    the examples for training | my conversations for training | a file with training examples | my preference data |
    my csv with examples
    """,
    """
    see if my data is right | check data | inspect data | check the format of my data | find errors in my dataset |
    see how long my examples are | count the tokens in my data | know if my dataset is good | count my examples |
    find bad examples | see statistics of my data | check my data before training | see how many examples I have |
    find out if my training file is valid | look into my dataset | see if my jsonl is valid |
    check my data for mistakes | see what the training examples look like | detect duplicates in my data |
    see if my data has the right format | see how many tokens my dataset has | know if the examples are too long |
    find examples that are too long | find out what is wrong with my dataset |
    make sure my data is ready for training | get dataset statistics | check if my examples have the right fields |
    see the first examples of my data | check a jsonl | validate a jsonl file | test my data before I fine-tune |
    see the length of my training examples | look for broken lines in my jsonl
    """,
    """
    my data | a dataset | my dataset | datasets | data | training data | a JSONL file | jsonl | data inspection |
    inspecting data | checking data | a data check | the format of my data | dataset statistics |
    mistakes in my data | data quality | duplicates in my data | a look at my data | checking my dataset |
    data validation | dataset inspection | the training examples | my jsonl file | a look at my training examples |
    the length of my examples
    """,
    """
    Is my data right? | Is my dataset good? | Is my jsonl valid? | Does my data have the right format? |
    Is my data ready for training? | My examples may contain errors. | Are my examples too long? |
    How many tokens does my dataset have? | How many examples do I have? | Are there mistakes in my data? |
    I am not sure about the format of my data. | Is the format of my training file right? |
    Before training I want to look at my data. | I want to see my data first. |
    What does my training data look like? | Training complains about my data. | Does my dataset contain duplicates? |
    Is my training file fine? | Can you check my dataset? | Something is wrong with my dataset. |
    My jsonl seems to be broken. | I made a dataset, is it any good?
    """,
    "检查 | 查看 | 分析 | 预览 | 验证 | 看看 | 浏览 | 检查_的格式 | 统计 | 查找_里的错误 | 审查 | 看",
    """
    数据 | 训练数据 | 数据集 | 我的数据 | JSONL文件 | 我的数据集 | 训练集 | 训练样本 | 训练文件 | 微调数据 |
    我的训练数据 | 样本 | jsonl
    """,
    """
    检查我的数据格式 | 看看数据对不对 | 训练前检查数据 | 看看样本有多长 | 统计数据的词元数 | 看数据集里有什么 |
    找重复的数据 | 检查数据有没有错误 | 确认数据可以训练 | 看看数据集好不好 | 数一下样本 | 看数据格式对不对
    """,
    """
    我的数据对吗？ | 数据集有没有错误？ | 数据格式对吗？ | 我的jsonl有效吗？ | 数据集好不好？ | 数据有多少词元？ |
    样本太长了吗？ | 训练前想看看数据。 | 数据里有重复吗？ | 我的数据集有多少样本？
    """,
)
