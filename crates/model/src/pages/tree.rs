//! The tree of cached prefixes: an edge is the content of a page, compared by value.

use crate::rope::RopeSet;
use crate::{FeatureId, Input};
use phi3_tensor::{Batch, PAGE};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

/// Number of a page, less than the budget.
pub type PageId = u32;

/// Root of a tree of cached prefixes. Equal inputs of different roots share nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CacheRoot {
    /// Rope factors of the cached keys.
    pub rope: RopeSet,
    /// Separates tenants, who could otherwise find out each other's prompts by timing.
    pub salt: Option<Box<str>>,
}

/// Node of the tree of cached prefixes: an empty prefix, or one of full pages. Numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefixNode(u64);

/// What makes two inputs equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Token(u32),
    Feature(FeatureId, usize),
}

impl Key {
    /// The key of an input; `None` for a sampled token that the host has not read.
    pub(super) fn of(input: &Input) -> Option<Self> {
        match input {
            Input::Token(token) => (*token < Batch::SAMPLED).then_some(Self::Token(*token)),
            Input::Feature { features, row } => Some(Self::Feature(features.id(), *row)),
        }
    }
}

/// Published content of a page.
pub(super) struct Content {
    pub(super) parent: PrefixNode,
    pub(super) inputs: Arc<[Key]>,
    /// Node after a full page.
    pub(super) node: Option<PrefixNode>,
}

/// A published page after a node.
#[derive(Clone, Copy)]
pub(super) struct Child {
    pub(super) page: PageId,
    /// Node after a full page.
    pub(super) node: Option<PrefixNode>,
}

/// The published pages after a node by content. Of two neighbours of a text in alphabetical order, one has the longest beginning in
/// common with it.
type Children = BTreeMap<Arc<[Key]>, Child>;

#[derive(Default)]
pub(super) struct PrefixTree {
    roots: HashMap<CacheRoot, PrefixNode>,
    nodes: HashMap<PrefixNode, Children>,
    /// Number of nodes made.
    made: u64,
}

impl PrefixTree {
    /// The node of a root, which is made if there is none. Roots without children are dropped when there are more than `limit`.
    pub(super) fn root(&mut self, root: &CacheRoot, limit: usize) -> PrefixNode {
        if let Some(node) = self.roots.get(root) {
            return *node;
        }
        if self.roots.len() > limit {
            let nodes = &mut self.nodes;
            self.roots.retain(|_, node| {
                let kept = nodes.get(node).is_some_and(|children| !children.is_empty());
                if !kept {
                    nodes.remove(node);
                }
                kept
            });
        }
        let node = self.add_node();
        self.roots.insert(root.clone(), node);
        node
    }

    pub(super) fn contains(&self, node: PrefixNode) -> bool {
        self.nodes.contains_key(&node)
    }

    /// The child that has the longest beginning in common with `keys`, and its length; at least 1.
    pub(super) fn longest(&self, parent: PrefixNode, keys: &[Key]) -> Option<(usize, Child)> {
        let children = self.nodes.get(&parent)?;
        let before = children.range::<[Key], _>((Unbounded, Included(keys))).next_back();
        let after = children.range::<[Key], _>((Excluded(keys), Unbounded)).next();
        let common = |(inputs, child): (&Arc<[Key]>, &Child)| {
            (inputs.iter().zip(keys).take_while(|(a, b)| a == b).count(), *child)
        };
        let longest = before.into_iter().chain(after).map(common).max_by_key(|(same, _)| *same);
        longest.filter(|(same, _)| *same > 0)
    }

    /// Adds a child of a node that is in the tree. Returns the node after a full page.
    pub(super) fn insert(&mut self, parent: PrefixNode, keys: Arc<[Key]>, page: PageId) -> Option<PrefixNode> {
        let node = (keys.len() == PAGE).then(|| self.add_node());
        if let Some(children) = self.nodes.get_mut(&parent) {
            children.insert(keys, Child { page, node });
        }
        node
    }

    /// Removes the child with this content. The pages of its children, which have to be removed next, are appended to `orphans`.
    pub(super) fn remove(&mut self, content: &Content, orphans: &mut Vec<PageId>) {
        if let Some(children) = self.nodes.get_mut(&content.parent) {
            children.remove(&content.inputs);
        }
        let children = content.node.and_then(|node| self.nodes.remove(&node));
        orphans.extend(children.into_iter().flatten().map(|(_, child)| child.page));
    }

    pub(super) fn clear(&mut self) {
        self.roots.clear();
        self.nodes.clear();
    }

    fn add_node(&mut self) -> PrefixNode {
        let node = PrefixNode(self.made);
        self.made += 1;
        self.nodes.insert(node, Children::new());
        node
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}
