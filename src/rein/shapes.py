"""The letters behind the underscore of a tensor's name: `logits_BTV` is batch × tokens × vocabulary.

B  sequences in a batch     T  tokens in a sequence      N  tokens of a whole batch, B · T
D  embedding width          H  attention heads           E  width of one head
V  vocabulary               F  features                  A  actions
K  items shown to a person  L  layers                    M  width inside the MLP, 4 · D
I  inner width of attention, H · E (equal to D but for GPT-3 XL and 13B as printed)
"""
