// How a batch is cut: tiles of kTileRows samples, which the kernels take, and chunks of tiles, each of
// which has a partial sum of its own. The cut depends on the sizes of batch and network alone, never on
// the machine or the number of threads, so every sum has one fixed order.
#pragma once

#include <algorithm>

#include "kernel_table.h"
#include "parallel.h"

namespace trpo_fast {

struct Tiling {
  static constexpr Index kMaxChunks = 64;

  explicit Tiling(Index rows = 0, Index max_chunks = kMaxChunks)
      : rows(rows),
        tiles((rows + kTileRows - 1) / kTileRows),
        tiles_per_chunk(std::max<Index>(1, (tiles + max_chunks - 1) / max_chunks)),
        chunks((tiles + tiles_per_chunk - 1) / tiles_per_chunk) {}

  // Some consecutive chunks of this cut, which hold so many rows, numbered from 0.
  Tiling part(Index part_rows) const {
    Tiling part = *this;
    part.rows = part_rows;
    part.tiles = (part_rows + kTileRows - 1) / kTileRows;
    part.chunks = (part.tiles + tiles_per_chunk - 1) / tiles_per_chunk;
    return part;
  }

  Index tile_begin(Index tile) const { return tile * kTileRows; }
  Index tile_rows(Index tile) const { return std::min(kTileRows, rows - tile * kTileRows); }
  Index rows_per_chunk() const { return tiles_per_chunk * kTileRows; }
  Index chunk_begin(Index chunk) const { return chunk * tiles_per_chunk; }
  Index chunk_end(Index chunk) const { return std::min(tiles, (chunk + 1) * tiles_per_chunk); }

  // body(tile, chunk, thread): chunks run concurrently, the tiles of a chunk in order.
  template <class Body>
  void for_each_tile(int threads, const Body& body) const {
    parallel_for(chunks, threads, [&](Index chunk, int thread) {
      for (Index tile = chunk_begin(chunk); tile < chunk_end(chunk); ++tile)
        body(tile, chunk, thread);
    });
  }

  Index rows;
  Index tiles;
  Index tiles_per_chunk;
  Index chunks;
};

// Below some 2 million multiply-adds a parallel region costs more than it saves.
inline bool worth_threads(Index rows, Index parameters) { return rows * parameters >= 2'000'000; }

// Threads worth using for `rows` samples through a network of `parameters` weights.
inline int threads_for(Index rows, Index parameters) {
  return worth_threads(rows, parameters) ? usable_threads() : 1;
}

// The cut for that work: a single chunk where one thread does it all, which spares adding partials up.
inline Tiling tiling_for(Index rows, Index parameters) {
  return Tiling(rows, worth_threads(rows, parameters) ? Tiling::kMaxChunks : 1);
}

}  // namespace trpo_fast
