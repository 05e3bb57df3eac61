import torch.nn as nn

from . import blocks


class SmallNet(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.features = nn.Sequential(blocks.block(1, 8), blocks.block(8, 16))
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(16 * 2 * 2, classes)

    def forward(self, image):
        return self.head(self.drop(self.features(image).flatten(1)))
