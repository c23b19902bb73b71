class Remarks:
    def __init__(self, up, before, wanted):
        self.sentences=[]
    def comments(self, step): return []
