"""StableKeypoints' map the slow way: enlarge the features, project them, softmax over the tokens, average."""

import torch
import torch.nn.functional as F


def attention_map(watched, context, latent, size, most_positions=32**2, count=4):
    """[batch token height width] from what `oracles.attention.watch` saw, one item, layer and head at a time.

    watched: (name, layer, features [batch position channel]) in the order in which the UNet ran them; context: all
    rows of the softmax.
    """
    chosen = [
        (layer, features)
        for name, layer, features in watched
        if name.startswith("up_blocks") and features.shape[1] <= most_positions
    ][:count]
    out = []
    for item in range(len(context)):
        maps = []
        for layer, features in chosen:
            height, width = next(
                (h, w)
                for h, w in ((-(-latent[0] // d), -(-latent[1] // d)) for d in (1, 2, 4, 8))
                if h * w == features.shape[1]
            )
            picture = features[item].T.reshape(1, -1, height, width)
            large = F.interpolate(picture, size=size, mode="bicubic", align_corners=False)
            query, key = layer.to_q(large[0].flatten(1).T), layer.to_k(context[item])
            part = query.shape[1] // layer.heads
            for head in range(layer.heads):
                own = slice(head * part, (head + 1) * part)
                probabilities = torch.softmax(query[:, own] @ key[:, own].T / part**0.5, dim=1)
                maps.append(probabilities.T.reshape(-1, *size))
        out.append(torch.stack(maps).mean(0))
    return torch.stack(out)


def objective(maps, warped, matrix, chosen, sigma):
    """Sharpening and equivariance of one picture's [token height width] maps, pixel by pixel.

    matrix: 2 × 3, where a point of the picture lies in the warped one, in the unit square. Only pixels whose place in
    the warped map has four neighbours there count towards equivariance.
    """
    height, width = maps.shape[1:]
    sharp, moved, shown = 0.0, 0.0, 0
    for token in chosen:
        peak = int(maps[token].argmax())
        for row in range(height):
            for col in range(width):
                squared = (row - peak // width) ** 2 + (col - peak % width) ** 2
                target = torch.exp(torch.tensor(-squared / (2 * sigma**2)))
                sharp += float((maps[token, row, col] - target) ** 2)
                place = torch.tensor([(col + 0.5) / width, (row + 0.5) / height, 1.0])
                x, y = (matrix @ place * torch.tensor([width, height]) - 0.5).tolist()
                if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                    continue
                left, top = min(int(x), width - 2), min(int(y), height - 2)
                u, v = x - left, y - top
                patch = warped[token, top : top + 2, left : left + 2]
                value = (1 - v) * ((1 - u) * patch[0, 0] + u * patch[0, 1]) + v * (
                    (1 - u) * patch[1, 0] + u * patch[1, 1]
                )
                moved += float((value - maps[token, row, col]) ** 2)
                shown += 1
    return sharp / (len(chosen) * height * width), moved / shown
