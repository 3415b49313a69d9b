//! Pages of the KV cache: who uses which page, and which prefixes are cached.
//!
//! A page holds the keys and values of [`PAGE`] positions in all layers. Here are numbers only: the table has no lock, no device, no
//! clock and no `Drop`.

mod tree;

use crate::Input;
use phi3_tensor::{Batch, PAGE};
use std::collections::BTreeMap;
use std::sync::Arc;
pub use tree::{CacheRoot, PageId, PrefixNode};
use tree::{Content, Key, PrefixTree};

/// Longest cached prefix of some inputs. The caller holds a reference to each of its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Node after the full pages: the parent of the page that follows them.
    pub node: PrefixNode,
    /// Pages in order. Of the last one, fewer than [`PAGE`] positions may belong to the prefix.
    pub pages: Vec<PageId>,
    /// Length of the prefix.
    pub tokens: usize,
}

/// How a page may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The page itself.
    InPlace,
    /// A copy of it. The caller holds a reference to both pages, and releases `from` when it has ordered the copy.
    Copy {
        /// The page as it was.
        from: PageId,
        /// The page to write, with undefined content until it is copied.
        to: PageId,
    },
}

/// Table of a number of pages that only shrinks.
///
/// A page is *used* while references to it are held. Without references it is *cached* if it has published content, else *free*.
/// Cached pages are evicted in the order of their last use, and only when no other page is left.
pub struct PageTable {
    budget: usize,
    /// Pages that were allocated at least once.
    pages: Vec<Page>,
    /// Free pages that were allocated before.
    freed: Vec<PageId>,
    /// Cached pages by the time of their release.
    cached: BTreeMap<u64, PageId>,
    used: usize,
    releases: u64,
    tree: PrefixTree,
}

#[derive(Default)]
struct Page {
    references: u32,
    content: Option<Content>,
    /// Key in [`PageTable::cached`], while cached.
    released: u64,
}

impl PageTable {
    /// A table of `pages` free pages.
    pub fn with_budget(pages: usize) -> Self {
        Self {
            budget: pages.min(Batch::NO_PAGE as usize),
            pages: Vec::new(),
            freed: Vec::new(),
            cached: BTreeMap::new(),
            used: 0,
            releases: 0,
            tree: PrefixTree::default(),
        }
    }

    /// Number of pages.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Pages that are referenced.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Pages that are not referenced and have published content.
    pub fn cached(&self) -> usize {
        self.cached.len()
    }

    /// Pages that are neither used nor cached.
    pub fn free(&self) -> usize {
        self.budget - self.used - self.cached.len()
    }

    /// Pages that [`allocate`](Self::allocate) can give: free and cached ones.
    pub fn available(&self) -> usize {
        self.budget - self.used
    }

    /// Node of the empty prefix.
    pub fn root(&mut self, root: &CacheRoot) -> PrefixNode {
        self.tree.root(root, 2 * self.budget)
    }

    /// Longest cached prefix of the first `most` of `inputs`: full pages, then the page that has the longest beginning in common
    /// with the rest. Takes a reference to each page.
    pub fn lookup(&mut self, root: PrefixNode, inputs: &[Input], most: usize) -> Prefix {
        let keys: Vec<Key> = inputs.iter().take(most).map_while(Key::of).collect();
        let mut prefix = Prefix { node: root, pages: Vec::new(), tokens: 0 };
        for keys in keys.chunks(PAGE) {
            let Some((same, child)) = self.tree.longest(prefix.node, keys) else { break };
            prefix.pages.push(child.page);
            prefix.tokens += same;
            match child.node.filter(|_| same == PAGE) {
                Some(node) => prefix.node = node,
                None => break,
            }
        }
        for page in &prefix.pages {
            self.acquire(*page);
        }
        prefix
    }

    /// Allocates `count` pages, or none where fewer are available. The caller holds a reference to each.
    ///
    /// Free pages that were allocated before come first, so that a device needs more memory only where all of them are of use. Then
    /// come pages that were never allocated, by number; then cached pages, which are evicted.
    pub fn allocate(&mut self, count: usize) -> Option<Vec<PageId>> {
        if count > self.available() {
            return None;
        }
        (0..count).map(|_| self.allocate_one()).collect()
    }

    /// Prepares a page of the caller's for writing the positions from `from` on, counted in the page; `None` where a copy is needed and
    /// no page is available.
    ///
    /// The page may be written in place if the caller holds its only reference and no published content is overwritten. Where
    /// no page is available for a copy, published content from the position on is forgotten instead.
    pub fn writable(&mut self, page: PageId, from: usize) -> Option<Write> {
        let Some(entry) = self.pages.get(page as usize).filter(|entry| entry.references > 0) else {
            debug_assert!(false, "page {page} is written without a reference");
            return None;
        };
        let only = entry.references == 1;
        if only && entry.content.as_ref().is_none_or(|content| content.inputs.len() <= from) {
            return Some(Write::InPlace);
        }
        if let Some(to) = self.allocate_one() {
            return Some(Write::Copy { from: page, to });
        }
        only.then(|| {
            self.forget(page);
            Write::InPlace
        })
    }

    /// Publishes that `page` holds `inputs`, 1 to [`PAGE`] of them, after the prefix `parent`. Only a computed page may be published,
    /// by a holder of a reference. Returns the node after a full page, else `parent`: the parent of the next publication.
    ///
    /// Longer content of a page replaces shorter content. A page whose content another page has published stays private, and so
    /// does one after a forgotten parent.
    pub fn publish(&mut self, parent: PrefixNode, page: PageId, inputs: &[Input]) -> PrefixNode {
        let keys: Arc<[Key]> = inputs.iter().map_while(Key::of).collect();
        let referenced = self.pages.get(page as usize).is_some_and(|entry| entry.references > 0);
        if !referenced || keys.len() != inputs.len() || !(1..=PAGE).contains(&keys.len()) {
            debug_assert!(false, "page {page} is published with {} inputs, {} known", inputs.len(), keys.len());
            return parent;
        }
        if !self.tree.contains(parent) {
            return parent;
        }
        if let Some((same, child)) = self.tree.longest(parent, &keys)
            && same == keys.len()
        {
            return child.node.filter(|_| same == PAGE).unwrap_or(parent);
        }
        self.forget(page);
        let node = self.tree.insert(parent, keys.clone(), page);
        self.pages[page as usize].content = Some(Content { parent, inputs: keys, node });
        node.unwrap_or(parent)
    }

    /// Gives references back, those of the last pages first, so that the end of a sequence is evicted before its beginning.
    /// [`Batch::NO_PAGE`] is skipped.
    pub fn release(&mut self, pages: impl IntoIterator<Item = PageId>) {
        let pages: Vec<PageId> = pages.into_iter().filter(|page| *page != Batch::NO_PAGE).collect();
        for page in pages.into_iter().rev() {
            self.release_one(page);
        }
    }

    /// Lowers the number of pages to `budget`, or to what is needed for the last page in use: the device has no more memory. Content
    /// of the other pages is forgotten.
    pub fn shrink(&mut self, budget: usize) {
        let in_use = self.pages.iter().rposition(|page| page.references > 0).map_or(0, |last| last + 1);
        let budget = budget.max(in_use).min(self.budget);
        for page in budget..self.pages.len() {
            self.forget(page as PageId);
        }
        self.freed.retain(|page| (*page as usize) < budget);
        self.pages.truncate(budget);
        self.budget = budget;
    }

    /// Forgets all published content: the device has lost it.
    pub fn clear_cached(&mut self) {
        self.tree.clear();
        self.pages.iter_mut().for_each(|page| page.content = None);
        self.freed.extend(std::mem::take(&mut self.cached).into_values());
    }

    fn allocate_one(&mut self) -> Option<PageId> {
        let page = match self.freed.pop() {
            Some(page) => page,
            None if self.pages.len() < self.budget => {
                self.pages.push(Page::default());
                (self.pages.len() - 1) as PageId
            }
            None => {
                let (_, &oldest) = self.cached.first_key_value()?;
                self.forget(oldest);
                self.freed.pop()?
            }
        };
        self.pages[page as usize].references = 1;
        self.used += 1;
        Some(page)
    }

    fn acquire(&mut self, page: PageId) {
        let entry = &mut self.pages[page as usize];
        if entry.references == 0 {
            self.cached.remove(&entry.released);
            self.used += 1;
        }
        entry.references += 1;
    }

    fn release_one(&mut self, page: PageId) {
        let Some(entry) = self.pages.get_mut(page as usize).filter(|entry| entry.references > 0) else {
            debug_assert!(false, "page {page} is released without a reference");
            return;
        };
        entry.references -= 1;
        if entry.references > 0 {
            return;
        }
        self.used -= 1;
        match entry.content {
            Some(_) => {
                self.releases += 1;
                entry.released = self.releases;
                self.cached.insert(entry.released, page);
            }
            None => self.freed.push(page),
        }
    }

    /// Forgets the content of a page and all prefixes that go on after it. Pages of these that are not referenced become free.
    fn forget(&mut self, page: PageId) {
        let mut pages = vec![page];
        while let Some(page) = pages.pop() {
            let entry = &mut self.pages[page as usize];
            let Some(content) = entry.content.take() else { continue };
            if entry.references == 0 {
                self.cached.remove(&entry.released);
                self.freed.push(page);
            }
            self.tree.remove(&content, &mut pages);
        }
    }
}

#[cfg(test)]
mod tests;
